# make repro: from nothing to a styled picture · make test: prove it · see README.md
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
# Stages are run by DVC as `python -m stages.…`: the environment's python comes first on the path.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
READY := $(VENV)/.ready

# Ports of `make server` and `make ui`; without them 4200 and 5000, or where a server runs already.
PREFECT_PORT ?=
MLFLOW_PORT ?=
WORKERS ?= 1

.PHONY: repro check test test-slow trials lint docs ui miniature miniature-card bench server server-stop lock audit tools

repro: $(READY)
	@aclora run

# Two test processes of one thread each use two cores better than one process of two threads. Tests of one file stay
# together, because they share what they set up. Byte code is kept even where the environment says otherwise: the tests
# start hundreds of processes, and compiling doubles the time that each takes to start.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile
# What takes whole pipelines, servers, and trainings that are stopped.
LONG := pipeline flows tracking training/test_checkpoints.py

check: lint
	$(PYTEST) $(addprefix --ignore tests/,$(LONG))

test: lint
	$(PYTEST)

test-slow: $(READY)
	$(PYTEST) -m slow

# Bad inputs and kills, drawn from SEED; writes docs/results/trials.md. 15 to 30 minutes on two cores.
SEED ?= 0
trials: $(READY)
	PYTHONDONTWRITEBYTECODE= python -m tests.trials --seed $(SEED)

lint: $(READY)
	ruff check . && ruff format --check .
	basedpyright

# The site: the repository's own Markdown, copied so that links between the files work, and Zensical's cache, in site/.
docs: $(READY)
	rm -rf site && mkdir -p site/pages
	git ls-files -z --cached --others --exclude-standard -- '*.md' '*.svg' 'docs/*.css' 'docs/*.png' 'metrics/*.png' \
	  'models/*/card.*' LICENSE ':!tests' ':!data' | tar --null -T - -cf - | tar -xf - -C site/pages
	cp zensical.toml site/
	zensical build --strict -f site/zensical.toml
	@echo "site/html/index.html; with search: python -m http.server --bind 127.0.0.1 --directory site/html"

# MLflow's pages of the runs that `aclora publish` put into the project's own store.
ui: $(READY)
	@python -m flows.server ui $(addprefix --port=,$(MLFLOW_PORT))

# glibc returns large blocks to the system and fetches them again at every step; keeping them saves a tenth or more.
miniature: export MALLOC_MMAP_THRESHOLD_ = 4294967296
miniature: export MALLOC_TRIM_THRESHOLD_ = 8589934592
miniature: $(READY)
	cd miniature && dvc repro
	python -m miniature.card --install

miniature-card: $(READY)
	python -m miniature.card

bench: $(READY)
	python -m bench.repro
	python -m bench.frechet
	python -m bench.coverage
	python -m bench.restart
	python -m bench.sigma
	python -m bench.tracking
	python -m bench.flow
	python -m bench.shared

server: $(READY)
	@python -m flows.server start $(addprefix --prefect-port=,$(PREFECT_PORT)) $(addprefix --mlflow-port=,$(MLFLOW_PORT)) \
	  --workers=$(WORKERS)

server-stop: $(READY)
	@python -m flows.server stop

# The pins of requirements.lock and deploy/s3.lock as they are, each with the hashes of all files that the index has of
# it, and of the CPU build that PyTorch's own index has for Linux and Python 3.11. To change a version, edit its line
# first. What PyPI's torch needs besides on Linux goes into requirements-cuda.lock, what a team's servers need of all
# these into deploy/servers.lock.
TORCH_CPU := sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
LOCK_TOOL := .cache/lock
LOCK := $(LOCK_TOOL)/bin/uv pip compile -q --generate-hashes --python-version 3.11.7 --no-header --no-annotate
SERVERS := prefect asyncpg mlflow psycopg2-binary boto3
lock:
	@test -x $(LOCK_TOOL)/bin/uv || { $(PYTHON) -m venv $(LOCK_TOOL) && $(LOCK_TOOL)/bin/pip install -q uv; }
	grep -oE '^[a-z0-9-]+==[^ ]+' requirements.lock > $(LOCK_TOOL)/pins.txt
	grep -oE '^[a-z0-9-]+==[^ ]+' deploy/s3.lock > $(LOCK_TOOL)/s3.txt
	$(LOCK) --no-deps $(LOCK_TOOL)/pins.txt -o $(LOCK_TOOL)/requirements.lock
	sed -i 's/^torch==.*/&\n    --hash=$(TORCH_CPU) \\/' $(LOCK_TOOL)/requirements.lock
	$(LOCK) --no-deps $(LOCK_TOOL)/s3.txt -o $(LOCK_TOOL)/s3.lock
	grep -E '^torch==' $(LOCK_TOOL)/pins.txt | $(LOCK) --python-platform x86_64-manylinux_2_28 - -c $(LOCK_TOOL)/pins.txt \
	  $$(sed 's/==.*//; s/^/--no-emit-package /' $(LOCK_TOOL)/pins.txt) -o $(LOCK_TOOL)/requirements-cuda.lock
	printf '%s\n' $(SERVERS) | $(LOCK) --python-platform x86_64-manylinux_2_28 - -c $(LOCK_TOOL)/pins.txt \
	  -c $(LOCK_TOOL)/s3.txt -o $(LOCK_TOOL)/servers.lock
	mv $(LOCK_TOOL)/requirements.lock $(LOCK_TOOL)/requirements-cuda.lock .
	mv $(LOCK_TOOL)/s3.lock $(LOCK_TOOL)/servers.lock deploy

# Known vulnerabilities of the locked packages, by pip-audit, which asks a server on the internet.
AUDIT_TOOL := .cache/audit
audit:
	@test -x $(AUDIT_TOOL)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT_TOOL) && $(AUDIT_TOOL)/bin/pip install -q pip-audit; } \
	  || { echo "pip-audit cannot be installed here: no package was looked up"; exit 1; }
	@$(AUDIT_TOOL)/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r requirements.lock \
	  -r requirements-cuda.lock || { \
	  echo "make audit: see above; where a server was not reached or does not know a package, nothing was looked up"; exit 1; }

tools:
	@command -v git >/dev/null || { echo "git is missing: install it (Debian: apt install git)"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11.5 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1): 3.11.5 or newer is needed; name one with make PYTHON=…"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make environments: install its venv (Debian: apt install python3-venv)"; exit 1; }

# torch comes first and from a folder: of the files that the lock allows, pip prefers one whose index names its hash, and
# would pass over PyTorch's CPU build where pip is set up to find that in a folder. PyPI's build for Linux needs CUDA's
# libraries, which requirements-cuda.lock has.
INSTALL := $(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-compile --require-hashes
TORCH := .cache/torch
$(READY): requirements.lock requirements-cuda.lock pyproject.toml | tools
	@echo "Installing the locked packages into $(VENV): about two minutes, once."
	$(PYTHON) -m venv $(VENV)
	@rm -rf $(TORCH) && mkdir -p $(TORCH)
	@awk '/^torch==/ { torch = 1 } torch { print } torch && !/\\$$/ { exit }' requirements.lock > $(TORCH)/requirements.lock
	$(VENV)/bin/python -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d $(TORCH) \
	  $$(grep -oE '^torch==[^ ]+' requirements.lock)
	$(INSTALL) --no-index --find-links $(TORCH) -r $(TORCH)/requirements.lock
	@rm -rf $(TORCH)
	$(INSTALL) -r requirements.lock
	@! grep -q "^cuda.*= '" $(VENV)/lib/python*/site-packages/torch/version.py || { \
	  echo "This build of torch needs CUDA's libraries: three gigabytes more."; $(INSTALL) -r requirements-cuda.lock; }
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

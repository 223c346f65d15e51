"""Who may import whom, and that every stage declares all the code it runs (DVC does not follow imports)."""

import ast
import itertools
import re
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, locked

SRC = ROOT / "src"
LIBRARY = SRC / "aclora"
STAGES = sorted((ROOT / "stages").glob("*.py"))
# From top to bottom: a room imports rooms that stand in a later line, and itself.
LAYERS = (
    ("cli",),
    ("tracking", "report", "check"),
    ("evaluation", "training", "audit"),
    ("methods", "models", "data", "metrics"),
    ("encoders", "lora"),
    ("project",),
    ("core",),
)
# What stands around a run and changes none of its outs: tests/pipeline/test_publish.py proves it of tracking, and of
# project the digest alone enters an out, which is core's.
OBSERVERS = (LIBRARY / "tracking", LIBRARY / "project")


def imports(file: Path) -> set[str]:
    """Every module a file imports, also inside functions; `from a import b` gives a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def file_of(module: str) -> Path | None:
    """The file of one of our modules, or None; a package without code has none."""
    top = {"aclora": SRC, "miniature": ROOT, "stages": ROOT, "flows": ROOT}.get(module.split(".")[0])
    if top is None:
        return None
    path = top / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file() and has_code(candidate):
            return candidate
    return None


def has_code(file: Path) -> bool:
    """Is there more in a package's __init__.py than its docstring? The library's face only looks names up."""
    if file.name != "__init__.py":
        return True
    return file != LIBRARY / "__init__.py" and len(ast.parse(file.read_text(encoding="utf-8")).body) > 1


def closure(file: Path) -> set[Path]:
    """All of our files that importing `file` may run, packages' __init__ included, but for the observers'."""
    seen, todo = set(), [file]
    while todo:
        current = todo.pop()
        if current in seen or any(current.is_relative_to(o) for o in OBSERVERS):
            continue
        seen.add(current)
        for module in imports(current):
            parts = module.split(".")
            todo += [f for i in range(1, len(parts) + 1) if (f := file_of(".".join(parts[:i])))]
    return seen


def third_party(file: Path) -> set[str]:
    """Top-level names of what a file imports that is neither ours nor Python's own."""
    ours = {"aclora", "miniature", "stages", "flows"}
    return {m.split(".")[0] for m in imports(file)} - set(sys.stdlib_module_names) - ours


def rooms_imported(file: Path) -> set[str]:
    """The rooms of the library from which a file imports."""
    return {m.split(".")[1] for m in imports(file) if m.startswith("aclora.")} & {r for line in LAYERS for r in line}


def test_every_module_has_a_room():
    rooms = {f.name for f in LIBRARY.iterdir() if f.is_dir() and f.name != "__pycache__"}
    assert rooms == {room for line in LAYERS for room in line}
    assert {f.name for f in LIBRARY.glob("*.py")} == {"__init__.py"}


def test_imports_lead_downwards_only():
    depth = {room: i for i, line in enumerate(LAYERS) for room in line}
    arrows = [
        f"{file.relative_to(SRC)} → aclora.{other}"
        for room in depth
        for file in sorted((LIBRARY / room).glob("*.py"))
        for other in sorted(rooms_imported(file))
        if other != room and depth[other] <= depth[room]
    ]
    assert not arrows, "upward or sideways imports:\n" + "\n".join(arrows)


def test_no_two_modules_import_each_other():
    files = sorted(LIBRARY.rglob("*.py"))
    direct = {f: {g for m in imports(f) if (g := file_of(m))} - {f} for f in files}

    def path(start, goal, seen):
        for after in direct.get(start, ()):
            if after == goal:
                return [start, after]
            if after not in seen and (rest := path(after, goal, seen | {after})):
                return [start, *rest]
        return None

    circles = [" → ".join(str(g.relative_to(SRC)) for g in p) for f in files if (p := path(f, f, {f}))]
    assert not circles


@pytest.mark.parametrize(
    ("room", "packages"),
    [
        (
            "core",
            {
                "torch",
                "PIL",
                "numpy",
                "yaml",
                "pydantic",
                "huggingface_hub",
                "transformers",
                "diffusers",
                "safetensors",
            },
        ),
        ("lora", {"torch", "pydantic", "safetensors", "peft"}),
        ("metrics", {"torch", "torchmetrics"}),
        ("encoders", {"torch", "numpy", "PIL", "safetensors", "transformers"}),
    ],
)
def test_a_room_needs_these_packages_alone(room, packages):
    used = {package for file in (LIBRARY / room).glob("*.py") for package in third_party(file)}
    assert used <= packages


@pytest.mark.parametrize("name", ["restart.py", "spectra.py"])
def test_the_maths_needs_torch_alone(name):
    assert third_party(LIBRARY / "lora" / name) == {"torch"}


def test_the_pipeline_needs_no_torchmetrics():
    users = {f.name for f in closure(ROOT / "stages/evaluate.py") if "torchmetrics" in third_party(f)}
    assert not users  # importing it takes seconds


def test_methods_never_import_each_other():
    for file in (LIBRARY / "methods").glob("*.py"):
        assert not any(m.startswith("aclora.methods") for m in imports(file)), file.name


def test_training_knows_no_method_and_no_model():
    for file in (LIBRARY / "training").glob("*.py"):
        assert not rooms_imported(file) & {"methods", "models"}, file.name


def test_the_library_knows_nothing_of_drawings():
    for file in LIBRARY.rglob("*.py"):
        assert "miniature" not in file.read_text(encoding="utf-8"), file.name


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("diffusers", {"models", "core"}),
        ("transformers", {"models", "encoders", "core"}),
        ("mlflow", {"tracking"}),
        ("dvc", {"project"}),
        ("prefect", set()),
        ("yaml", {"core"}),
    ],
)
def test_some_packages_have_one_home(package, rooms):
    users = {f for f in [*LIBRARY.rglob("*.py"), *STAGES] if package in third_party(f)}
    assert {f.parent.name for f in users} <= rooms, users


@pytest.mark.parametrize("file", STAGES, ids=lambda f: f.name)
def test_stages_meet_through_files(file):
    assert not any(m.split(".")[0] == "stages" for m in imports(file))


def declared() -> dict[str, dict]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def stages_declared() -> dict[str, dict]:
    """Each stage of dvc.yaml by its name, those of every style once."""
    return {name: stage.get("do", stage) for name, stage in declared().items()}


def stage_of(file: Path) -> dict:
    """The stage of dvc.yaml that runs a file of stages/."""
    return next(s for s in stages_declared().values() if s["cmd"].split()[2] == f"stages.{file.stem}")


def code_of(stage: dict) -> list[str]:
    """The lines of a stage's deps that name code."""
    return [d for d in stage["deps"] if d.startswith(("src/", "stages/"))]


def rooms_of_templates(stage: dict) -> list[Path]:
    """What a line with a knob in it may stand for: any file of its room; what is not in it, for the judge's modules."""
    return [ROOT / d.partition("/${")[0] for d in code_of(stage) if "${" in d]


@pytest.mark.parametrize("file", STAGES, ids=lambda f: f.stem)
def test_every_import_of_a_stage_is_a_dependency(file):
    stage = stage_of(file)
    deps = [ROOT / d for d in stage["deps"] if "${" not in d] + rooms_of_templates(stage)
    missing = {str(f.relative_to(ROOT)) for f in closure(file) if not any(f.is_relative_to(d) for d in deps)}
    assert not missing


@pytest.mark.parametrize("file", STAGES, ids=lambda f: f.stem)
def test_every_dependency_of_a_stage_is_used(file):
    stage = stage_of(file)
    used = closure(file)
    named = [ROOT / d for d in code_of(stage) if "${" not in d]
    unused = [str(d.relative_to(ROOT)) for d in named if not any(f.is_relative_to(d) for f in used)]
    assert set(unused) <= {"src/aclora/lora"}  # of training: for the methods, which a knob chooses


@pytest.mark.parametrize("file", STAGES, ids=lambda f: f.stem)
def test_a_person_can_read_what_a_stage_depends_on(file):
    assert len(code_of(stage_of(file))) <= 8


def test_every_stage_has_its_file_and_says_what_it_does():
    stages = stages_declared()
    pipeline = ["caption", "train-aclora", "restart-audit", "generate", "evaluate"]
    assert list(stages)[:7] == ["check", "check-style", *pipeline]
    files = [re.match(r"python -m stages\.(\w+)( '\$\{key\}')?$", s["cmd"]) for s in stages.values()]
    assert sorted(found[1] for found in files if found) == [file.stem for file in STAGES]
    assert all(s["desc"] for s in stages.values())


def test_torch_is_pinned_and_torchvision_is_out():
    lock = locked()
    assert lock["torch"] == "2.13.0"
    assert not lock.keys() & {"torchvision", "torch-fidelity", "pytorch-fid", "clean-fid", "image-reward"}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-cuda.lock"])
def test_every_package_of_a_lock_is_known_by_its_hashes(name: str):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pins = [number for number, line in enumerate(lines) if not line.startswith(" ")]
    assert len(pins) == len(locked(name))
    for start, end in itertools.pairwise([*pins, len(lines)]):
        assert re.fullmatch(r"[a-z0-9-]+==[^ ]+ \\", lines[start])
        assert end - start > 1
        for line in lines[start + 1 : end]:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line)


def test_the_lock_allows_torch_without_cuda_and_names_what_the_build_with_cuda_needs():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    cpu = re.search(r"^TORCH_CPU := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert f"    --hash={cpu[1]} \\" in lines
    cuda = locked("requirements-cuda.lock")
    assert cuda.keys() >= {"nvidia-cudnn-cu13", "nvidia-nccl-cu13", "triton"}
    assert not cuda.keys() & locked().keys()


def test_files_are_read_in_one_sitting():
    folders = ("src", "stages", "flows", "miniature", "bench", "examples")
    files = [f for d in folders for f in (ROOT / d).rglob("*.py") if "build" not in f.parts]
    long = {str(f): n for f in files if (n := len(f.read_text(encoding="utf-8").splitlines())) > 300}
    assert not long

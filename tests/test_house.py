"""Who may import whom, and that every stage declares all the code it runs (DVC does not follow imports)."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

SRC = ROOT / "src"
STAGES = sorted((ROOT / "stages").glob("*.py"))


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
    """The file of one of our modules, or None."""
    top = {"aclora": SRC, "miniature": ROOT, "stages": ROOT}.get(module.split(".")[0])
    if top is None:
        return None
    path = top / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


# Shows a training to MLflow while it runs and changes none of its outs: tests/pipeline/test_publish.py. So it is no
# dependency.
OBSERVER = SRC / "aclora/live.py"


def closure(file: Path) -> set[Path]:
    """All of our files that importing `file` may run, packages' __init__ included, but for the observer's."""
    seen, todo = set(), [file]
    while todo:
        current = todo.pop()
        if current in seen or current == OBSERVER:
            continue
        seen.add(current)
        for module in imports(current):
            parts = module.split(".")
            todo += [f for i in range(1, len(parts) + 1) if (f := file_of(".".join(parts[:i])))]
    return seen


def third_party(file: Path) -> set[str]:
    """Top-level names of what a file imports that is neither ours nor Python's own."""
    import sys

    return {m.split(".")[0] for m in imports(file)} - set(sys.stdlib_module_names) - {"aclora", "miniature", "stages"}


def ours(file: Path) -> set[str]:
    """The files of ours that a file imports directly, as paths from src/aclora."""
    files = {file_of(m) for m in imports(file)} - {None, SRC / "aclora/__init__.py"}
    return {str(f.relative_to(SRC / "aclora")) for f in files if f.is_relative_to(SRC)}


@pytest.mark.parametrize("name", ["restart.py", "spectra.py"])
def test_the_maths_needs_torch_alone(name):
    file = SRC / "aclora" / name
    assert third_party(file) == {"torch"}
    assert ours(file) <= {"spectra.py"}


@pytest.mark.parametrize("file", sorted((SRC / "aclora/metrics").glob("*.py")), ids=lambda f: f.name)
def test_metrics_are_features_to_numbers(file):
    assert third_party(file) <= {"torch", "torchmetrics"}
    others = {f"metrics/{f.name}" for f in file.parent.glob("*.py")}
    assert ours(file) <= {"errors.py", *others}


@pytest.mark.parametrize("file", sorted((SRC / "aclora/metrics/encoders").glob("*.py")), ids=lambda f: f.name)
def test_encoders_are_frozen_networks_that_need_no_diffusers(file):
    assert third_party(file) <= {"torch", "numpy", "PIL", "safetensors", "transformers", "huggingface_hub"}
    assert ours(file) <= {"errors.py", "metrics/__init__.py", "metrics/checks.py", "metrics/encoders/__init__.py"}


def test_the_pipeline_needs_no_torchmetrics():
    users = {f.name for f in closure(ROOT / "stages/evaluate.py") if "torchmetrics" in third_party(f)}
    assert not users  # importing it takes seconds


@pytest.mark.parametrize("file", sorted((SRC / "aclora/adapters").glob("*.py")), ids=lambda f: f.name)
def test_methods_never_import_each_other(file):
    assert ours(file) <= {"adapters/__init__.py", "restart.py", "spectra.py", "errors.py"}


def test_training_knows_no_method():
    assert ours(SRC / "aclora/training.py") <= {"adapters/__init__.py", "errors.py"}


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("diffusers", {"src/aclora/backbone.py", "src/aclora/sampling.py"}),
        ("mlflow", {"src/aclora/tracking.py"}),
        ("prefect", set()),
    ],
)
def test_some_packages_have_one_home(package, homes):
    files = [*SRC.rglob("*.py"), *STAGES]
    users = {str(f.relative_to(ROOT)) for f in files if package in third_party(f)}
    assert users <= homes


@pytest.mark.parametrize("file", STAGES, ids=lambda f: f.name)
def test_stages_meet_through_files(file):
    assert not any(m.split(".")[0] == "stages" for m in imports(file))


def test_only_params_reads_the_parameters():
    readers = {f.name for f in [*SRC.rglob("*.py"), *STAGES] if "yaml" in third_party(f)}
    assert readers == {"params.py"}


def declared() -> dict[str, dict]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("file", STAGES, ids=lambda f: f.stem)
def test_every_import_of_a_stage_is_a_dependency(file):
    stage = declared()[file.stem.replace("_", "-")]["do"]
    deps = [ROOT / d for d in stage["deps"] if "${" not in d]
    # what a template stands for: the method's own file, the drawings as a style's reference
    deps += [SRC / "aclora/adapters"] * any("${method}" in d for d in stage["deps"])
    deps += [ROOT / "miniature/drawing"] * any("${item.reference}" in d for d in stage["deps"])
    needed = {f for f in closure(file) if f != ROOT / "miniature/__init__.py"}
    missing = {str(f.relative_to(ROOT)) for f in needed if not any(f.is_relative_to(d) for d in deps)}
    assert not missing


@pytest.mark.parametrize("file", STAGES, ids=lambda f: f.stem)
def test_every_dependency_of_a_stage_is_used(file):
    stage = declared()[file.stem.replace("_", "-")]["do"]
    # restart.py is there for the methods that use it
    code = {ROOT / d for d in stage["deps"] if d.endswith(".py") and "${" not in d} - {SRC / "aclora/restart.py"}
    assert code - {SRC / "aclora/spectra.py"} <= closure(file)


def test_the_five_stages_each_say_what_they_do():
    stages = declared()
    assert list(stages) == ["caption", "train-aclora", "restart-audit", "generate", "evaluate"]
    assert all(s["do"]["desc"] for s in stages.values())


def test_torch_is_pinned_and_torchvision_is_out():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    names = {line.split("==")[0] for line in lock}
    assert "torch==2.13.0" in lock
    assert not names & {"torchvision", "torch-fidelity", "pytorch-fid", "clean-fid", "image-reward"}
    assert all(re.fullmatch(r"[a-z0-9-]+==[^ ]+", line) for line in lock)


def test_files_are_read_in_one_sitting():
    files = [
        f for d in ("src", "stages", "miniature", "bench") for f in (ROOT / d).rglob("*.py") if "build" not in f.parts
    ]
    long = {str(f): n for f in files if (n := len(f.read_text(encoding="utf-8").splitlines())) > 350}
    assert not long

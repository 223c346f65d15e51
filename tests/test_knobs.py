"""No knob of params.yaml is dead: code outside of its own section, or dvc.yaml, reads each of them.

What a knob changes is tested beside its code (tests/methods/test_aclora.py demands another outcome of every knob).
"""

import ast

import pytest

from aclora.core.config import Config
from aclora.evaluation.evaluate import project_figures
from docs import generate
from tests.conftest import ROOT

CHECK = ROOT / "src/aclora/check"  # it sees every knob and uses few
CODE = [f for d in ("src", "stages") for f in (ROOT / d).rglob("*.py") if not f.is_relative_to(CHECK)]
ROOMS = {"model": "models"}
KNOBS = [(path, model, knob) for path, model in generate.models().items() for knob in model.model_fields]


@pytest.fixture
def encoders(monkeypatch):
    """The knobs of `evaluate` that figures name: the encoders that they rest on."""
    monkeypatch.chdir(ROOT)
    return {figure.encoder for figure in project_figures().values()}


def words_read(source: str, section: str) -> set[str]:
    """Names of attributes that code reads outside of sections' own classes, and knobs that it names in full."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if hasattr(node, "body") and isinstance(node.body, list):
            node.body = [n for n in node.body if not (isinstance(n, ast.ClassDef) and is_section(n))] or [ast.Pass()]
    found = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return found | {text.removeprefix(f"{section}.") for text in texts if text.startswith(f"{section}.")}


def is_section(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == Config.__name__ for base in node.bases)


def read_by_code(section: str, model: type[Config]) -> set[str]:
    """What the files that know a section's class, or belong to the room that gets it, read."""
    sources = {f: f.read_text(encoding="utf-8") for f in CODE}
    readers = {f: s for f, s in sources.items() if model.__name__ in s or f.parent.name == ROOMS.get(section)}
    return {word for source in readers.values() for word in words_read(source, section)}


@pytest.mark.parametrize(("path", "model", "knob"), KNOBS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_knob_is_read(path, model, knob, encoders):
    section = path.partition(".")[0]
    in_dvc = {f"${{{section}.{knob}}}", f"${{item.{knob}}}"}
    pipeline = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    read = read_by_code(section, model) | (encoders if section == "evaluate" else set())
    assert knob in read or any(word in pipeline for word in in_dvc)


def test_a_dead_knob_would_be_noticed():
    section = "class TrainConfig(Config):\n    def rules(self):\n        return self.epochs\n"
    assert words_read(section, "train") == set()
    assert words_read(section + "def f(config):\n    return config.epochs\n", "train") == {"epochs"}

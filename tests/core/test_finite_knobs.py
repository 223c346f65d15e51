"""No knob of any section takes what is not a finite number, however it is written."""

import importlib
import re

import pytest
import yaml

from aclora.core import params
from aclora.core.config import Config, _alternatives
from aclora.core.errors import InputError
from tests.conftest import ROOT

NAMES = {"StyleConfig": "styles.watercolor"}  # where a section's name is not the class's


def sections() -> dict[str, type[Config]]:
    """Every section of the library, found in its code: by its name in params.yaml."""
    for file in sorted((ROOT / "src/aclora").rglob("*.py")):
        if re.search(r"^class \w+\(Config\)", file.read_text(encoding="utf-8"), re.MULTILINE):
            importlib.import_module(".".join(file.relative_to(ROOT / "src").with_suffix("").parts))
    own = [c for c in Config.__subclasses__() if c.__module__.startswith("aclora.")]
    return {NAMES.get(c.__name__, c.__name__.removesuffix("Config").lower()): c for c in own}


SECTIONS = sections()
KNOBS = [
    (section, knob, kind)
    for section, into in SECTIONS.items()
    for knob, field in into.model_fields.items()
    for kind in (int, float)
    if kind in _alternatives(field.annotation)
]
WRITTEN = (
    ".inf",
    "-.inf",
    ".Inf",
    ".nan",
    ".NAN",
    "1e999",
    "-1e999",
    "'.inf'",
    "'inf'",
    "'-Infinity'",
    "'nan'",
    "'1e999'",
)


def test_all_sections_are_found():
    assert {"train", "generate", "audit", "aclora", "adalora", "checkpoints", "evaluate", "data"} <= set(SECTIONS)
    assert ("generate", "guidance_scale", float) in KNOBS
    assert ("aclora", "threshold", float) in KNOBS  # beside a word
    assert ("data", "limit", int) in KNOBS  # beside null


@pytest.mark.parametrize(("section", "knob", "kind"), KNOBS, ids=lambda value: getattr(value, "__name__", value))
def test_it_must_be_finite(section, knob, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # some sections look whether their folders are there
    values, file = params.value(section), tmp_path / "params.yaml"

    def load(written):
        text = yaml.safe_dump({section: values | {knob: "HERE"}}).replace("HERE", written)
        file.write_text(text, encoding="utf-8")
        return params.load(section, SECTIONS[section], file)

    assert load("null" if values[knob] is None else str(values[knob]))
    for written in (*WRITTEN, "1" + "0" * 400 if kind is float else "1.5"):
        with pytest.raises(InputError, match=rf" {section}.{knob} = ") as error:
            load(written)
        assert "\n" not in str(error.value)

"""What is generated from params.yaml and the code is current, and describes params.yaml as it is."""

import copy
import json

import jsonschema
import pytest

from aclora.core import params
from docs import generate
from tests.conftest import ROOT

OUTSIDE = """
from pydantic import Field

from aclora.core.config import Config
from aclora.core.method import Method


class NarrowConfig(Config):
    width: int = Field(ge=1, le=3)


class Narrow(Method):
    config_type = NarrowConfig


METHOD = Narrow
"""


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(generate.SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def values():
    return copy.deepcopy(params.read(ROOT / params.FILE))


@pytest.mark.parametrize("file", generate.FILES, ids=lambda f: f.name)
def test_generated_files_are_current(file):
    assert file.read_text(encoding="utf-8") == generate.FILES[file](), "run `python -m docs.generate`"


def test_editors_find_the_schema():
    first = (ROOT / params.FILE).read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={params.SCHEMA}"


def test_params_yaml_fits_the_schema(validator, values):
    validator.validate(values)


@pytest.mark.parametrize(
    ("section", "knob", "value"),
    [
        ("train", "epochs", 0),
        ("train", "epochs", "3"),
        ("train", "epcohs", 3),
        ("train", "learning_rate", 1),
        ("train", "mixed_precision", "fp8"),
        ("train", "resolution", 7),
        ("aclora", "threshold", 1.5),
        ("aclora", "threshold", "often"),
        ("aclora", "min_index", 0),
        ("evaluate", "figures", "miniature.judging"),
        ("base", "rank", 4),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(validator, values, section, knob, value):
    values[section][knob] = value
    assert not validator.is_valid(values)


@pytest.mark.parametrize(
    ("section", "knob", "value"),
    [
        ("train", "resolution", 64),
        ("aclora", "threshold", 0.5),
        ("aclora", "max_index", 3),
        ("evaluate", "clip", None),
        ("evaluate", "figures", []),
        ("data", "limit", 5),
    ],
)
def test_the_schema_takes_what_the_reader_takes(validator, values, section, knob, value):
    values[section][knob] = value
    validator.validate(values)


def test_a_missing_knob_and_an_unknown_section_do_not_fit(validator, values):
    assert not validator.is_valid(values | {"trian": {}})
    del values["generate"]["seed"]
    assert not validator.is_valid(values)


def test_a_style_is_checked_under_any_name(validator, values):
    values["styles"]["mine"] = values["styles"]["watercolor"] | {"trigger": "abc style"}
    validator.validate(values)
    values["styles"]["mine"]["folder"] = "x"
    assert not validator.is_valid(values)


@pytest.mark.parametrize(
    ("name", "fits"), [("lora", True), ("my_package.my_method", True), ("lroa", False), (3, False)]
)
def test_a_method_is_a_known_name_or_a_dotted_one(validator, values, name, fits):
    assert validator.is_valid(values | {"method": name}) == fits


def test_every_knob_has_a_question_of_its_own():
    asked = generate.questions((ROOT / params.FILE).read_text(encoding="utf-8"))
    for path, model in generate.models().items():
        texts = [asked[f"{path}.{knob}"] for knob in model.model_fields]
        assert all("?" in text for text in texts)
        assert len(set(texts)) == len(texts)


def test_a_method_from_outside_is_described_too(tmp_path, monkeypatch):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/narrow.py").write_text(OUTSIDE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "params.yaml"
    text = (ROOT / params.FILE).read_text(encoding="utf-8").replace("\nmethod: aclora\n", "\nmethod: outside.narrow\n")
    section = "# Mine.\noutside:\n  narrow:\n    # How narrow? From 1 to 3.\n    width: 2\n"
    file.write_text(text + section, encoding="utf-8")
    checked = jsonschema.Draft202012Validator(generate.schema(file))
    checked.validate(params.read(file))
    assert not checked.is_valid(params.read(file) | {"outside": {"narrow": {"width": 4}}})
    assert "## outside.narrow\n\nMine.\n\n- **`width: 2`** · a whole number between 1 and 3  \n" in generate.knobs(file)


def test_every_section_of_the_file_has_a_model():
    names = {path.partition(".")[0] for path in generate.models()} | {"method"}
    assert names == set(params.read(ROOT / params.FILE))

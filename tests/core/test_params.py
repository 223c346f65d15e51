"""params.yaml is read strictly: what a user mistypes is named, with what was meant."""

import json
import subprocess
import sys
from typing import Literal

import pytest
import yaml
from pydantic import ValidationError

from aclora.audit.signatures import AuditConfig
from aclora.core import params, yaml_reader
from aclora.core.config import Config
from aclora.core.errors import InputError
from aclora.core.method import method_named
from aclora.core.model import ModelConfig
from aclora.evaluation.evaluate import EvaluateConfig
from aclora.models.captioner import CaptionsConfig
from aclora.models.sampling import GenerateConfig
from aclora.training.loop import TrainConfig
from tests.conftest import ROOT, section

SECTIONS = {
    "train": TrainConfig,
    "model": ModelConfig,
    "captions": CaptionsConfig,
    "audit": AuditConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "styles.watercolor": params.StyleConfig,
} | {name: method_named(name).config_type for name in ("aclora", "lora", "base")}


class Knobs(Config):
    rate: float
    count: int
    name: str
    way: Literal["no", "yes"]
    size: int | None


def train(**written):
    """A whole section in which some knobs are written so."""
    knobs = {"rate": "1.0", "count": "1", "name": "x", "way": "yes", "size": "null"} | written
    return f"train: {{{', '.join(f'{knob}: {value}' for knob, value in knobs.items())}}}"


def load(tmp_path, text, section="train", into=Knobs):
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    return params.load(section, into, file)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_knob_stands_in_the_file_with_its_question(section, monkeypatch):
    monkeypatch.chdir(ROOT)
    into = SECTIONS[section]
    loaded = params.load(section, into)
    assert isinstance(loaded, into)
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for part in section.split("."):
        values = values[part]
    open_knobs = getattr(loaded, "encoders", {})
    assert set(values) == set(into.model_fields) | set(open_knobs)


@pytest.mark.parametrize("written", ["1e-4", "1E-4", "1e-04", "+.0001", "0.0001", "'1e-4'", "1.0e-4"])
def test_scientific_notation_is_a_number(tmp_path, written):
    assert load(tmp_path, train(rate=written)).rate == 1e-4


@pytest.mark.parametrize("written", ["no", "'no'"])
def test_a_bare_no_is_the_word(tmp_path, written):
    assert load(tmp_path, train(way=written)).way == "no"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("[no, off, on, yes, y, n]", ["no", "off", "on", "yes", "y", "n"]),
        ("[true, False, TRUE]", [True, False, True]),
        ("[12, -3, 1.5, -2.5e3, 1e3, .inf]", [12, -3, 1.5, -2500.0, 1000.0, float("inf")]),
        ("[e3, 1e, 1.2.3, v1.0, ~, null]", ["e3", "1e", "1.2.3", "v1.0", None, None]),
        ("[010, 09, 0o17, 0x1F, 1_000, -0]", [10, 9, 15, 31, 1000, 0]),
        ("{a: &x [1, 2], b: *x, c: {<<: {d: 1}}}", {"a": [1, 2], "b": [1, 2], "c": {"d": 1}}),
    ],
)
def test_values_are_read_as_dvc_reads_them(written, value):
    from ruamel.yaml import YAML

    assert yaml_reader.parse(written) == value
    assert [type(v) for v in yaml_reader.parse(written)] == [type(v) for v in value]
    assert YAML(typ="safe").load(written) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {raet: 1}", "train.raet is unknown; did you mean 'rate'?"),
        ("train: {rate: fast}", "train.rate = 'fast': must be a number"),
        ("train: {rate: true}", "train.rate = True: must be a number"),
        ("train: {count: 1.5}", "train.count = 1.5: must be a whole number"),
        ("train: {count: true}", "train.count = True: must be a whole number"),
        ("train: {name: 3}", "train.name = 3: must be a text"),
        ("train: {way: maybe}", "train.way = 'maybe': must be one of no, yes"),
        ("train: {size: big}", "train.size = 'big': must be a whole number"),
        ("train: {rate: .nan}", "train.rate = nan: must be a number"),
        ("train: {3: x}", "line 1: the name 3 is no text: put it in quotes"),
        (train(way="~"), "train.way = None: must be one of no, yes"),
        (train(size="1.5"), "train.size = 1.5: must be a whole number or null"),
        ("train: {rate: 1, count: 1, way: no, size: 8}", "train.name is missing: it must be a text"),
        ("train: {}", "train.rate is missing: it must be a number"),
        ("train:", "train.rate is missing: it must be a number"),
        ("train: 3", "train = 3: must be a section"),
        ("trian: {rate: 1}", "trian is unknown; did you mean 'train'?"),
        ("model: {}", "train is missing"),
        ("train: {rate: 1", "is not YAML"),
        ("train: {a: !!set {1, 2}}", "line 1: tag:yaml.org,2002:set is no value that a knob can have"),
        ("train:\n  rate: 1\n  rate: 2", "line 3: 'rate' is given twice"),
        ("train: {}\nmodel: {}\ntrain: {}", "line 3: 'train' is given twice"),
        ("train: &x {name: *x}", "line 1: *x stands inside of itself"),
        ("train: {name: &x [*x]}", "line 1: *x stands inside of itself"),
        ("styles: {1: {}}", "line 1: the name 1 is no text: put it in quotes"),
        ("styles: {? [a] : {}}", "line 1: the name ['a'] is no text"),
        ("train: !!python/object:os.system {}", "could not determine a constructor"),
        (f"train: {'[' * 3000}", "nested too deeply"),
        ("train: {rate: 2020-13-45}", "a value cannot be read"),
        ("train: {name: \x00}", "special characters are not allowed"),
        ("--- {}\n--- {}", "expected a single document"),
        ("- train", "must be a section of names and values"),
        (train(name="''"), "train.name = '': must be a text that is not empty"),
        (train(name='"a\\nb"'), "train.name = 'a\\nb': must be a text without the character '\\n'"),
        (train(name="x" * 256), "must be at most 255 bytes long"),
        (train(count="1e400"), "train.count = inf: must be a whole number"),
        (train(rate="'.inf'"), "train.rate"),
        (train(rate="'1e999'"), "train.rate = '1e999': must be a number"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, said):
    with pytest.raises(InputError) as error:
        load(tmp_path, text)
    assert said in str(error.value)
    assert "params.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("section", "into", "knob", "value"),
    [
        ("train", TrainConfig, "epochs", 0),
        ("train", TrainConfig, "learning_rate", 0),
        ("train", TrainConfig, "batch_size", -1),
        ("aclora", SECTIONS["aclora"], "restart_every", 0),
        ("aclora", SECTIONS["aclora"], "alpha", -1.0),
        ("aclora", SECTIONS["aclora"], "max_rank", 1),
        ("lora", SECTIONS["lora"], "rank", 0),
        ("audit", AuditConfig, "loss_rise", 0.5),
        ("evaluate", EvaluateConfig, "held_out", 1),
        ("evaluate", EvaluateConfig, "batch_size", 0),
        ("generate", GenerateConfig, "without_trigger", -1),
    ],
)
def test_a_value_out_of_range_is_named_with_its_bound(tmp_path, section, into, knob, value):
    values = params.value(section, ROOT / params.FILE) | {knob: value}
    with pytest.raises(InputError, match=f"{section}.{knob} = .*must be"):
        load(tmp_path, yaml.safe_dump({section: values}), section, into)


@pytest.mark.parametrize(("section", "into"), SECTIONS.items())
def test_a_missing_knob_is_named_with_its_question(tmp_path, section, into):
    (tmp_path / params.SCHEMA).write_bytes((ROOT / params.SCHEMA).read_bytes())
    whole = params.value(section, ROOT / params.FILE)
    for knob in into.model_fields:
        values = {key: value for key, value in whole.items() if key != knob}
        for part in reversed(section.split(".")):
            values = {part: values}
        with pytest.raises(InputError, match=rf"params.yaml: {section}.{knob} is missing: (?!it must be).+") as error:
            load(tmp_path, yaml.safe_dump(values), section, into)
        assert "\n" not in str(error.value)


def test_a_default_in_the_code_is_refused():
    with pytest.raises(TypeError, match=r"Late.epochs has a default: params.yaml is the only place of one"):

        class Late(Config):
            epochs: int = 3


def test_a_section_is_frozen():
    config = Knobs(rate=1, count=1, name="x", way="no", size=None)
    assert isinstance(config.rate, float)
    with pytest.raises(ValidationError):
        config.rate = 2.0


def test_the_section_of_a_method_from_outside_is_nested_by_its_dots(tmp_path):
    text = "method: mine.methods.x\nmine: {methods: {x: {bound: 3}}}\n"
    assert load(tmp_path, text, "mine.methods.x", NumberOrWord).bound == 3
    another = text.replace("method: mine.methods.x", "method: lora")
    assert load(tmp_path, another, "mine.methods.x", NumberOrWord).bound == 3  # another method is chosen: it may stay
    with pytest.raises(InputError, match=r"params.yaml: mine is unknown"):
        load(tmp_path, "method: lora\nmine: {rank: 3}\n", "mine", NumberOrWord)
    with pytest.raises(InputError, match=r"params.yaml: mine.methods.x is missing; there are: y"):
        load(tmp_path, text.replace("{x:", "{y:"), "mine.methods.x", NumberOrWord)


def test_the_reader_imports_no_method():
    code = "import sys; from aclora.core import params; params.value('method'); print('aclora.methods' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(InputError, match="is missing: run from the project's folder"):
        params.load("train", Knobs, tmp_path / "params.yaml")


def test_a_hub_model_needs_the_commit_that_is_meant(tmp_path):
    with pytest.raises(InputError, match="revision is missing"):
        section("model", ModelConfig, name="owner/model", watch="models")
    with pytest.raises(InputError, match="no such folder"):
        section("model", ModelConfig, name="./nowhere", watch="models")
    with pytest.raises(InputError, match="watch = 'other': must be the model's folder"):
        section("model", ModelConfig, name=str(tmp_path), watch="other")


def test_encoders_lie_where_dvc_watches(tmp_path):
    inside = tmp_path / "models/clip"
    inside.mkdir(parents=True)
    knobs = dict.fromkeys(("fid", "image_reward", "judge")) | {"dino": "owner/name@commit", "clip": str(inside)}
    section("evaluate", EvaluateConfig, watch=str(tmp_path / "models"), **knobs)
    with pytest.raises(InputError, match="watch = 'other': must be a folder that holds clip = "):
        section("evaluate", EvaluateConfig, watch="other", **knobs)


class NumberOrWord(Config):
    bound: float | Literal["dynamic"]


@pytest.mark.parametrize(("written", "value"), [("dynamic", "dynamic"), ("0.8", 0.8), ("8e-1", 0.8)])
def test_a_knob_may_be_a_number_or_a_word(tmp_path, written, value):
    assert load(tmp_path, f"train: {{bound: {written}}}", into=NumberOrWord).bound == value


def test_neither_the_number_nor_the_word_names_both(tmp_path):
    with pytest.raises(InputError, match=r"train.bound = 'often': must be a number or dynamic$"):
        load(tmp_path, "train: {bound: often}", into=NumberOrWord)


def test_a_knob_for_an_encoder_on_which_no_figure_rests_is_unknown():
    with pytest.raises(InputError, match=r"clp is unknown; did you mean 'clip'\?"):
        section("evaluate", EvaluateConfig, clp="models/miniature/clip")
    without = {"figures": [], "judge": None}  # null stands for nothing
    assert section("evaluate", EvaluateConfig, **without).encoders["judge"] is None
    with pytest.raises(InputError, match="judge is unknown"):
        section("evaluate", EvaluateConfig, figures=[])


def test_aliases_that_explode_are_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(InputError, match="line 5: its aliases stand for more than 100000 values"):
        load(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "a; touch x",
        "$(touch x)",
        "`touch x`",
        "a&touch x",
        "../x",
        "a/b",
        "-x",
        "_x",
        "ö",
        "x" * 65,
        "''",
        "a\n",
    ],
)
def test_a_style_has_a_name_that_can_stand_anywhere(tmp_path, name):
    file = tmp_path / "params.yaml"
    quoted = name if name == "''" else json.dumps(name)
    file.write_text(f"styles: {{{quoted}: {{}}}}\nmethod: lora\n", encoding="utf-8")
    for read in (params.styles, params.method):  # whatever is read first
        with pytest.raises(InputError, match="cannot be a style's name: it must be 1 to 64 letters"):
            read(file)


@pytest.mark.parametrize("name", ["a", "9", "Van-Gogh_2", "x" * 64, "null", "yes"])
def test_these_are_names_of_styles(tmp_path, name):
    file = tmp_path / "params.yaml"
    file.write_text(f'styles: {{"{name}": {{}}}}\n', encoding="utf-8")
    assert params.styles(file) == [name]


@pytest.mark.parametrize("styles", ["{}", "~", ""])
def test_no_style_is_an_error(tmp_path, styles):
    file = tmp_path / "params.yaml"
    file.write_text(f"styles: {styles}\n", encoding="utf-8")
    with pytest.raises(InputError, match="styles is empty: give a style with"):
        params.styles(file)

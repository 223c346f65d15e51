"""params.yaml is read strictly: what a user mistypes is named, with what was meant."""

import dataclasses
from typing import Literal

import pytest
import yaml

from aclora.audit.signatures import AuditConfig
from aclora.core import params
from aclora.core.errors import InputError
from aclora.core.method import method_named
from aclora.core.model import ModelConfig
from aclora.data.captions import CaptionsConfig
from aclora.evaluation.evaluate import EvaluateConfig
from aclora.models.sampling import GenerateConfig
from aclora.training.loop import TrainConfig
from tests.conftest import ROOT

SECTIONS = {
    "train": TrainConfig,
    "model": ModelConfig,
    "captions": CaptionsConfig,
    "audit": AuditConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "styles.watercolor": params.StyleConfig,
} | {name: method_named(name).config_type for name in ("aclora", "lora", "base")}


@dataclasses.dataclass(frozen=True)
class Knobs:
    rate: float = 1.0
    count: int = 1
    name: str = ""
    way: Literal["no", "yes"] = "no"
    size: int | None = None


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
    assert set(values) == {f.name for f in dataclasses.fields(into)}


@pytest.mark.parametrize("written", ["1e-4", "0.0001", "'1e-4'", "1.0e-4"])
def test_scientific_notation_is_a_number(tmp_path, written):
    assert load(tmp_path, f"train: {{rate: {written}}}").rate == 1e-4


@pytest.mark.parametrize("written", ["no", "'no'"])
def test_a_bare_no_is_the_word(tmp_path, written):
    assert load(tmp_path, f"train: {{way: {written}}}").way == "no"


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
        ("train: 3", "train = 3: must be a section"),
        ("trian: {rate: 1}", "trian is unknown; did you mean 'train'?"),
        ("model: {}", "train is missing"),
        ("train: {rate: 1", "is not YAML"),
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
    required = {EvaluateConfig: {"watch": "models"}, GenerateConfig: {"prompts": "p"}}.get(into, {})
    with pytest.raises(InputError, match=f"{section}.{knob} = .*must be"):
        load(tmp_path, yaml.safe_dump({section: required | {knob: value}}), section, into)


def test_a_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(InputError, match="is missing: run from the project's folder"):
        params.load("train", Knobs, tmp_path / "params.yaml")


def test_a_hub_model_needs_the_commit_that_is_meant(tmp_path):
    with pytest.raises(InputError, match="revision is missing"):
        ModelConfig(name="owner/model", watch="models")
    with pytest.raises(InputError, match="no such folder"):
        ModelConfig(name="./nowhere", watch="models")
    with pytest.raises(InputError, match="watch = 'other': must be the model's folder"):
        ModelConfig(name=str(tmp_path), watch="other")


def test_encoders_lie_where_dvc_watches(tmp_path):
    inside = tmp_path / "models/clip"
    inside.mkdir(parents=True)
    EvaluateConfig(watch=str(tmp_path / "models"), clip=str(inside), dino="owner/name@commit")
    with pytest.raises(InputError, match="watch = 'other': must be a folder that holds clip = "):
        EvaluateConfig(watch="other", clip=str(inside))


@dataclasses.dataclass(frozen=True)
class NumberOrWord:
    bound: float | Literal["dynamic"] = "dynamic"


@pytest.mark.parametrize(("written", "value"), [("dynamic", "dynamic"), ("0.8", 0.8), ("8e-1", 0.8)])
def test_a_knob_may_be_a_number_or_a_word(tmp_path, written, value):
    assert load(tmp_path, f"train: {{bound: {written}}}", into=NumberOrWord).bound == value


def test_neither_the_number_nor_the_word_names_both(tmp_path):
    with pytest.raises(InputError, match=r"train.bound = 'often': must be a number or dynamic$"):
        load(tmp_path, "train: {bound: often}", into=NumberOrWord)

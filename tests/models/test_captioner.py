"""A captioner that cannot be loaded is an error in one line that names the knob."""

import shutil

import pytest
from PIL import Image

from aclora.core.errors import InputError
from aclora.models.captioner import CaptionsConfig, blip, check_captioner
from tests import damage
from tests.conftest import ROOT, section

FOLDER = ROOT / "models/miniature/captioner"
CASES = {
    "weights cut": ("model.safetensors", damage.cut, "captioner/model.safetensors is cut short or damaged"),
    "weights in git-lfs": ("model.safetensors", damage.pointer, "is git-lfs's note of a file: run `git lfs pull`"),
    "weights gone": ("model.safetensors", damage.removed, "captioner/ holds no weights, model.safetensors"),
    "processor gone": ("preprocessor_config.json", damage.removed, "captioner/preprocessor_config.json is missing"),
    "vocabulary gone": ("tokenizer.json", damage.removed, "captioner/ lacks a vocabulary"),
    "vocabulary cut": ("tokenizer.json", damage.cut, "captioner/tokenizer.json is damaged"),
    "config gone": ("config.json", damage.removed, "captioner/config.json is missing"),
    "config cut": ("config.json", damage.cut, "captioner/config.json is damaged"),
    "config of another": ("config.json", damage.config(model_type="clip"), "says that it is a clip, must be a blip"),
}
ONLY_LOADED = {
    "a weight gone": ("model.safetensors", damage.lacking, "1 of its weights are missing"),
    "a weight of another shape": ("model.safetensors", damage.reshaped, "its weights have other shapes"),
    "NaN": ("model.safetensors", damage.put(float("nan")), "a value of .* is not a finite number"),
    "hostile": ("model.safetensors", damage.hostile, "its weights are pickled with more than tensors"),
}


@pytest.fixture
def spoilt(tmp_path):
    def spoil(path, how):
        place = shutil.copytree(FOLDER, tmp_path / "captioner")
        how(place / path)
        return section("captions", CaptionsConfig, model=str(place), watch=str(place))

    return spoil


@pytest.mark.parametrize("case", CASES | ONLY_LOADED)
def test_a_broken_captioner_is_named(spoilt, tmp_path, case):
    path, how, said = (CASES | ONLY_LOADED)[case]
    config = spoilt(path, how)
    with pytest.raises(InputError, match=rf"^captions.model = '.*captioner' cannot be loaded: .*{said}") as error:
        blip(config)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "captioner" / damage.ALARM).exists()
    if case in CASES:
        with pytest.raises(ValueError, match=said):
            check_captioner(tmp_path / "captioner")
    else:
        check_captioner(tmp_path / "captioner")


def test_a_whole_captioner_passes_and_writes():
    check_captioner(FOLDER)
    config = section("captions", CaptionsConfig, model=str(FOLDER), watch=str(FOLDER))
    assert blip(config)(Image.new("RGB", (64, 64), "blue"))

"""A model that cannot be loaded is an error in one line, and most of it is found without reading a weight."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from aclora.core.errors import InputError
from aclora.core.model import load_model
from aclora.core.model_check import check_loading, check_model, prompt_readers
from tests import damage
from tests.conftest import model_config

UNET, TEXT, VAE = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors", "vae/config.json"
BY_FILES, BY_SHAPES, BY_VALUES = "its files", "its shapes", "its values"  # what has to be read to find it
CASES = {
    "weights cut": (UNET, damage.cut, BY_FILES, "unet/.*safetensors is cut short or damaged"),
    "weights emptied": (UNET, damage.emptied, BY_FILES, "unet/.*safetensors is cut short or damaged"),
    "weights that are text": (TEXT, damage.text, BY_FILES, "text_encoder/model.safetensors is cut short or damaged"),
    "weights in git-lfs": (TEXT, damage.pointer, BY_FILES, "text_encoder/.* is git-lfs's note .* run `git lfs pull`"),
    "weights gone": (TEXT, damage.removed, BY_FILES, "text_encoder/ holds no weights, model.safetensors"),
    "weights pickled": (
        TEXT,
        damage.pickled,
        BY_FILES,
        r"text_encoder/pytorch_model.bin is pickled, .* convert it to model.safetensors",
    ),
    "weights that run code": (TEXT, damage.hostile, BY_FILES, "text_encoder/pytorch_model.bin is pickled"),
    "UNet pickled": (UNET, damage.pickled, BY_FILES, "unet/diffusion_pytorch_model.bin is pickled"),
    "a weight gone": (UNET, damage.lacking, BY_SHAPES, "unet: 1 of its weights are missing, conv_in.weight for one"),
    "a text weight gone": (TEXT, damage.lacking, BY_SHAPES, "text_encoder: 1 of its weights are missing"),
    "a weight of another shape": (
        UNET,
        damage.reshaped,
        BY_SHAPES,
        r"unet: its weights have other shapes .* \(conv_in.weight is \[3, 5\], must be",
    ),
    "a text weight of another shape": (TEXT, damage.reshaped, BY_SHAPES, "text_encoder: its weights have other shapes"),
    "fewer layers": (
        "unet/config.json",
        damage.config(layers_per_block=0),
        BY_SHAPES,
        "unet: its weights have more layers than its config.json says",
    ),
    "another width": (
        "text_encoder/config.json",
        damage.config(hidden_size=64),
        BY_SHAPES,
        "text_encoder: its weights",
    ),
    "NaN": (UNET, damage.put(float("nan")), BY_VALUES, "unet: a value of conv_in.weight is not a finite number"),
    "infinity": (TEXT, damage.put(float("-inf")), BY_VALUES, "text_encoder: a value of .* is not a finite number"),
    "config gone": (VAE, damage.removed, BY_FILES, "vae/config.json is missing"),
    "config cut": (VAE, damage.cut, BY_FILES, "vae/config.json is damaged: it is no JSON"),
    "config a list": (VAE, damage.a_list, BY_FILES, "vae/config.json is damaged: it must be a JSON object"),
    "scheduler gone": ("scheduler/scheduler_config.json", damage.removed, BY_FILES, "scheduler/.* is missing"),
    "scheduler of no steps": (
        "scheduler/scheduler_config.json",
        damage.config(num_train_timesteps=0),
        BY_SHAPES,
        "num_train_timesteps = 0: must be at least 1",
    ),
    "scheduler unknown": (
        "scheduler/scheduler_config.json",
        damage.config(beta_schedule="x"),
        BY_SHAPES,
        "x is not implemented",
    ),
    "tokenizer gone": ("tokenizer", damage.removed, BY_FILES, "the folder tokenizer, which .* lists, is missing"),
    "vocabulary gone": ("tokenizer/tokenizer.json", damage.removed, BY_FILES, "tokenizer/ lacks a vocabulary: "),
    "vocabulary cut": ("tokenizer/tokenizer.json", damage.cut, BY_FILES, "tokenizer/tokenizer.json is damaged"),
    "tokenizer without length": (
        "tokenizer/tokenizer_config.json",
        damage.config(model_max_length=None),
        BY_SHAPES,
        "no model_max_length",
    ),
    "VAE gone": ("vae", damage.removed, BY_FILES, "the folder vae, which .* lists, is missing"),
    "index cut": ("model_index.json", damage.cut, BY_FILES, "model_index.json is damaged"),
    "index a list": ("model_index.json", damage.a_list, BY_FILES, "model_index.json is damaged"),
    "another library": (
        "model_index.json",
        damage.config(unet=["os", "system"]),
        BY_FILES,
        r"unet = \['os', 'system'\], must be a class of diffusers or transformers",
    ),
    "another class": (
        "model_index.json",
        damage.config(unet=["diffusers", "Nope"]),
        BY_SHAPES,
        r"unet = \['diffusers', 'Nope'\], of which there is no such class",
    ),
}


def spoilt(folder, to, path, how):
    place = shutil.copytree(folder, to / "model")
    how(place / path)
    return model_config(place)


@pytest.mark.parametrize("case", CASES)
def test_it_is_said_in_one_line(tiny_folder, tmp_path, case):
    path, how, found_by, said = CASES[case]
    config = spoilt(tiny_folder, tmp_path, path, how)
    found = {}
    for stage, look in ((BY_FILES, check_model), (BY_SHAPES, check_loading), (BY_VALUES, load_model)):
        try:
            look(config)
        except InputError as error:
            found[stage] = str(error)
    assert next(iter(found)) == found_by
    assert BY_VALUES in found, "it must not be loaded"
    for line in found.values():
        assert "\n" not in line
        assert len(line) < 400
    with pytest.raises(InputError, match=said):
        load_model(config)
    assert not list((tmp_path / "model").rglob(damage.ALARM))


def test_a_whole_model_passes_every_look(folders, kind):
    config = model_config(*folders[kind])
    check_model(config)
    model = check_loading(config)
    assert {p.device.type for p in model.network.parameters()} == {"meta"}
    assert [one.name for one in model.readers] == [one.name for one in prompt_readers(config)]


@pytest.mark.parametrize("part", ["text_encoder_2", "text_encoder_3", "transformer", "vae"])
def test_each_network_of_a_pipeline_is_looked_at(folders, tmp_path, part):
    folder, family = folders["sd3"]
    place = shutil.copytree(folder, tmp_path / "model")
    (file,) = (place / part).glob("*.safetensors")
    damage.put(float("nan"))(file)
    with pytest.raises(InputError, match=rf"{part}: a value of .* is not a finite number"):
        load_model(model_config(place, family))
    damage.lacking(file)
    with pytest.raises(InputError, match=rf"{part}: 1 of its weights are missing"):
        load_model(model_config(place, family))
    damage.cut(file)
    with pytest.raises(InputError, match=rf"{part}/{file.name} is cut short or damaged"):
        load_model(model_config(place, family))


def test_weights_in_several_files(tiny_folder, tmp_path):
    config = spoilt(tiny_folder, tmp_path, UNET, lambda file: None)
    unet = tmp_path / "model" / UNET
    tensors = load_file(unet)
    names = sorted(tensors)
    shards = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for shard, part in zip(shards, (names[::2], names[1::2]), strict=True):
        save_file({k: tensors[k] for k in part}, unet.with_name(shard), {"format": "pt"})
    listed = {k: shards[i % 2] for i, k in enumerate(names)}
    index = unet.with_name(f"{unet.name}.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    unet.unlink()
    loaded = load_model(config).network.state_dict()
    assert all(torch.equal(loaded[k], v.float()) for k, v in tensors.items())
    index.write_text(json.dumps({"weight_map": listed | {"more.weight": shards[0]}}))
    with pytest.raises(InputError, match=rf"unet/{shards[0]} lacks more.weight"):
        check_model(config)
    index.write_text(json.dumps({"weight_map": []}))
    with pytest.raises(InputError, match=r"index.json is damaged: it must have a weight_map"):
        check_model(config)
    index.write_text(json.dumps({"weight_map": listed}))
    unet.with_name(shards[1]).unlink()
    with pytest.raises(InputError, match=rf"unet/{shards[1]}, which .*index.json lists, is missing"):
        check_model(config)

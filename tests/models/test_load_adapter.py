"""Adapters that `generate` cannot use: one line each, whoever made them, and no text of theirs is run."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from aclora.core.errors import InputError
from aclora.lora.export import save_diffusers, save_tuner, write
from aclora.methods.lokr import LoKr, LoKrConfig
from aclora.models.sampling import load_adapter

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
BACKTRACKS = "(" * 12 + "[a-z0-9_.]+" + ")*" * 12 + "x"


def factors(network, rank=2):
    d, k = network.get_submodule(LAYER).weight.shape
    rng = torch.Generator().manual_seed(0)
    return {LAYER: (torch.randn(rank, k, generator=rng), torch.randn(d, rank, generator=rng))}


def refused(model, place, said):
    with pytest.raises(InputError, match=said) as error:
        load_adapter(model, place)
    assert str(error.value).startswith(str(place))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("to", ["diffusers", "kohya"])
def test_a_file_of_any_trainer_loads_with_its_alpha(tiny, tmp_path, to):
    made = factors(tiny.network)
    a, b = made[LAYER]
    place = tmp_path / "a.safetensors"
    if to == "kohya":
        write(place, made, {}, to)
        save_file(load_file(place) | {f"lora_unet_{LAYER.replace('.', '_')}.alpha": torch.tensor(4.0)}, place)
    else:
        header = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 4})}
        save_file({f"unet.{LAYER}.lora_A.weight": a, f"unet.{LAYER}.lora_B.weight": b}, place, header)
    load_adapter(tiny, place)
    delta = tiny.network.get_submodule(LAYER).get_delta_weight("default_0")
    torch.testing.assert_close(delta, 2 * b @ a)


def bad_file(model, place, how):
    """Write a file that cannot be loaded; what is said of it."""
    (a, b) = factors(model.network)[LAYER]
    if how == "not finite":
        save_file({f"unet.{LAYER}.lora_A.weight": a / 0, f"unet.{LAYER}.lora_B.weight": b}, place)
        return "is not finite; train again with a lower learning rate"
    if how == "other widths":
        save_diffusers(place, {LAYER: (torch.ones(2, 9), b)}, {})
        return r"is \(32, 9\), but \(32, 32\) in the model; it is of another base model"
    if how == "other layers":
        save_diffusers(place, {LAYER.replace("to_q", "to_x"): (a, b)}, {})
        return "to_x has no place in the unet; it is of another base model"
    if how == "a layer that has no matrix":
        save_diffusers(place, {LAYER.rpartition(".")[0]: (a, b)}, {})
        return "attn1 has no place in the unet"
    if how == "text encoder":
        tensors = {f"{LAYER}.lora_A.weight": a, f"{LAYER}.lora_B.weight": b}
        save_file({f"{c}.{k}": v.clone() for c in ("unet", "text_encoder") for k, v in tensors.items()}, place)
        return "changes text encoders too"
    if how == "cut":
        save_diffusers(place, {LAYER: (a, b)}, {})
        place.write_bytes(place.read_bytes()[:-9])
        return "is no whole safetensors file"
    header = {"lora_adapter_metadata": json.dumps({"unet.r": 2, f"unet.{how}": {BACKTRACKS: 2}})}
    save_file({f"unet.{LAYER}.lora_A.weight": a, f"unet.{LAYER}.lora_B.weight": b}, place, header)
    return f"{how} has .*: must be a layer's name, for no expression is run"


@pytest.mark.parametrize(
    "how",
    [
        "not finite",
        "other widths",
        "other layers",
        "a layer that has no matrix",
        "text encoder",
        "cut",
        "rank_pattern",
        "alpha_pattern",
    ],
)
def test_a_file_that_does_not_fit(tiny, tmp_path, how):
    said = bad_file(tiny, tmp_path / "a.safetensors", how)
    refused(tiny, tmp_path / "a.safetensors", said)


@pytest.fixture
def folder(tiny, tmp_path, tiny_folder):
    """A LoKr that was trained, in PEFT's format."""
    from tests.conftest import model_at

    made = LoKr(LoKrConfig(rank=2))
    other = model_at(tiny_folder)
    made.attach(other.network, other.adapter_layers)
    place = tmp_path / "adapter"
    weights = made.weights()
    assert weights
    place.mkdir()
    save_tuner(place, *weights, {})
    return place


def test_the_folder_loads(tiny, folder):
    load_adapter(tiny, folder)
    assert tiny.network.peft_config["default"].peft_type == "LOKR"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target_modules": BACKTRACKS}, "target_modules = .*: must be a list"),
        ({"target_modules": []}, "target_modules is missing"),
        ({"exclude_modules": BACKTRACKS}, "'exclude_modules' has .*: must be a name, for no expression is run"),
        ({"layers_pattern": [BACKTRACKS]}, "'layers_pattern' has .*: must be a name"),
        ({"rank_pattern": {BACKTRACKS: 2}}, "'rank_pattern' has .*: must be a name"),
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "megatron_config is set: must be null"),
        ({"peft_type": "NONE"}, "cannot be loaded .*NONE.*train again"),
        ({"peft_type": None}, "peft_type is missing"),
        ({"r": float("nan")}, "'r' has nan: must be a name or a number"),
        ({"r": -1}, "cannot be loaded"),
        ({"r": "x"}, "cannot be loaded"),
        ({"r": 3}, "cannot be loaded"),
        ({"rank_pattern": 3}, "cannot be loaded"),
        ({"peft_type": "LORA", "lora_alpha": 2}, "cannot be loaded .*Unexpected keyword"),
    ],
)
def test_a_folder_whose_settings_are_not_what_peft_writes(tiny, folder, change, said):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    refused(tiny, folder, said)


@pytest.mark.parametrize("how", ["no settings", "no tensors", "not finite", "cut", "a tensor less", "another shape"])
def test_a_folder_whose_files_are_damaged(tiny, folder, how):
    tensors = load_file(folder / "adapter_model.safetensors")
    first = min(tensors)
    said = {
        "no settings": "adapter_config.json, which has their alpha, must lie beside them",
        "no tensors": "adapter_model.safetensors is missing",
        "not finite": "is not finite: it is of another base model, or damaged: train again",
        "cut": "is no whole safetensors file",
        "a tensor less": "lacks .*lokr_",
        "another shape": "cannot be loaded .*size mismatch",
    }[how]
    if how.startswith("no "):
        (folder / {"no settings": "adapter_config.json", "no tensors": "adapter_model.safetensors"}[how]).unlink()
    if how == "not finite":
        tensors[first] = tensors[first] / 0
    if how == "a tensor less":
        del tensors[first]
    if how == "another shape":
        tensors[first] = torch.ones(3, 3)
    if (folder / "adapter_model.safetensors").exists():
        save_file(tensors, folder / "adapter_model.safetensors")
    if how == "cut":
        whole = (folder / "adapter_model.safetensors").read_bytes()
        (folder / "adapter_model.safetensors").write_bytes(whole[:-9])
    refused(tiny, folder, said)

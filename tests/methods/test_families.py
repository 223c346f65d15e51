"""Every method on a transformer of Stable Diffusion 3, as test_methods.py tries them on a UNet."""

import json

import pytest
import torch
from safetensors import safe_open

from aclora.core.errors import InputError
from aclora.lora.export import save_diffusers, save_tuner
from aclora.lora.names import component_of
from aclora.models.sampling import load_adapter
from tests.conftest import make_method, model_at
from tests.methods.test_methods import FACTORED, METHODS, disturb, knobs_of

LAYERS = [  # of two blocks; the second drops its text stream, and so its queries and outputs of it change nothing
    *(f"0.attn.{end}" for end in ("to_q", "to_k", "to_v", "add_k_proj", "add_v_proj", "add_q_proj", "to_out.0")),
    "0.attn.to_add_out",
    *(f"1.attn.{end}" for end in ("to_q", "to_k", "to_v", "add_k_proj", "add_v_proj", "to_out.0")),
]


def attach(model, name):
    torch.manual_seed(0)
    made = make_method(name, **knobs_of(name, 3))
    return made, made.attach(model.network, model.adapter_layers)


def predict(model):
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(2, 8, 8, 8, generator=rng)
    text = {"prompt_embeds": torch.randn(2, 9, 72, generator=rng), "pooled": torch.randn(2, 64, generator=rng)}
    with torch.no_grad():
        return model.predict(x, torch.tensor([900.0, 40.0]), text)


@pytest.mark.parametrize("name", METHODS)
def test_the_function_is_unchanged_at_the_start_and_then_every_parameter_matters(tiny_sd3, name):
    before = predict(tiny_sd3)
    made, parameters = attach(tiny_sd3, name)
    torch.testing.assert_close(predict(tiny_sd3), before, rtol=0, atol=1e-5 if name == "dora" else 0)
    assert made.layer_names() == [f"transformer_blocks.{layer}" for layer in LAYERS]
    disturb(parameters)
    before = predict(tiny_sd3)
    for p in parameters:
        with torch.no_grad():
            p += 0.5
            assert not torch.equal(predict(tiny_sd3), before), p.shape
            p -= 0.5


@pytest.mark.parametrize("name", METHODS)
def test_what_is_saved_is_what_was_trained(tiny_sd3, tiny_sd3_folder, tmp_path, name):
    made, parameters = attach(tiny_sd3, name)
    disturb(parameters)
    assert component_of(made.layer_names()) == tiny_sd3.component
    place = tmp_path
    if name in FACTORED:
        place = tmp_path / "lora.safetensors"
        save_diffusers(place, made.factors(), {})
        with safe_open(place, "pt") as file:
            assert all(key.startswith("transformer.transformer_blocks.") for key in file.keys())  # noqa: SIM118
            described = json.loads(file.metadata()["lora_adapter_metadata"])
        assert all(key.startswith("transformer.") for key in described)
    else:
        save_tuner(place, *made.weights(), {})
    other = model_at(tiny_sd3_folder, "stable_diffusion_3")
    before = predict(other)
    load_adapter(other, place)
    assert not torch.allclose(predict(other), before, atol=1e-3)
    exact = name not in ("trilora", "adalora")
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(predict(other), predict(tiny_sd3), **tolerance)


@pytest.mark.parametrize("name", ["lora", "lokr"])
def test_an_adapter_of_another_family_is_refused(tiny, tiny_sd3, tmp_path, name):
    made, _ = attach(tiny_sd3, name)
    place = tmp_path / "lora.safetensors" if name == "lora" else tmp_path
    if name == "lora":
        save_diffusers(place, made.factors(), {})
    else:
        save_tuner(place, *made.weights(), {})
    with pytest.raises(InputError, match=rf"^{tmp_path}.*: .*transformer_blocks.* has no place in the unet"):
        load_adapter(tiny, place)


def test_an_adapter_of_a_larger_model_of_the_family_is_refused(tiny_sd3, tmp_path):
    layer = "transformer_blocks.7.attn.to_q"
    save_diffusers(tmp_path / "a.safetensors", {layer: (torch.ones(2, 32), torch.ones(32, 2))}, {})
    with pytest.raises(InputError, match=rf"transformer.{layer} has no place in the transformer"):
        load_adapter(tiny_sd3, tmp_path / "a.safetensors")

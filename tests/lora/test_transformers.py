"""Adapters of a transformer, as Stable Diffusion 3 has one: diffusers' and PEFT's formats, and why not kohya's."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from aclora.core.errors import InputError
from aclora.lora.export import write
from aclora.lora.files import read
from aclora.lora.names import component_of
from aclora.lora.tuner import matching
from tests.lora.test_export import HEADER, assert_loaded, mixed

LAYER = "transformer_blocks.0.attn.to_q"


def random_factors(model, rank=lambda i: 3):
    rng = torch.Generator().manual_seed(0)
    factors = {}
    for i, (name, layer) in enumerate(matching(model.network, model.adapter_layers).items()):
        d, k = layer.weight.shape
        factors[name] = torch.randn(rank(i), k, generator=rng), torch.randn(d, rank(i), generator=rng)
    return factors


@pytest.mark.parametrize("rank", [lambda i: 3, mixed], ids=["one rank", "mixed ranks"])
class TestLoaded:
    def test_diffusers_loads_its_file_bit_for_bit(self, tiny_sd3, tmp_path, rank):
        factors = random_factors(tiny_sd3, rank)
        write(tmp_path / "a.safetensors", factors, HEADER, "diffusers")
        tiny_sd3.pipe.load_lora_weights(tmp_path / "a.safetensors")
        assert_loaded(tiny_sd3.network, factors, "default_0", exactly=True)

    def test_so_does_the_transformer_itself(self, tiny_sd3, tmp_path, rank):
        factors = random_factors(tiny_sd3, rank)
        write(tmp_path / "a.safetensors", factors, HEADER, "diffusers")
        tiny_sd3.network.load_lora_adapter(tmp_path, weight_name="a.safetensors")  # its prefix is the default
        assert_loaded(tiny_sd3.network, factors, "default_0", exactly=True)

    def test_peft_loads_the_folder_bit_for_bit(self, tiny_sd3, tmp_path, rank):
        from peft import PeftModel

        factors = random_factors(tiny_sd3, rank)
        write(tmp_path / "peft", factors, HEADER, "peft")
        loaded = PeftModel.from_pretrained(tiny_sd3.network, tmp_path / "peft")
        assert_loaded(loaded.base_model.model, factors, "default", exactly=True)

    @pytest.mark.parametrize("to", ["peft", "diffusers"])
    def test_what_is_written_is_read(self, tiny_sd3, tmp_path, rank, to):
        factors = random_factors(tiny_sd3, rank)
        write(tmp_path / "a.safetensors", factors, HEADER, to)
        found = read(tmp_path / "a.safetensors")
        assert (found.format, found.text_encoder) == (to, {})
        assert found.header.items() >= HEADER.items()
        assert set(found.factors) == set(factors)
        assert all(
            torch.equal(x, y) for n, pair in factors.items() for x, y in zip(found.factors[n], pair, strict=True)
        )


def test_what_diffusers_saved_is_read_with_its_alpha(tiny_sd3, tmp_path):
    from diffusers import StableDiffusion3Pipeline
    from peft import LoraConfig, get_peft_model_state_dict

    config = LoraConfig(r=4, lora_alpha=8, target_modules=["attn.to_q"], init_lora_weights="gaussian")
    tiny_sd3.network.add_adapter(config)
    with torch.no_grad():
        for name, parameter in tiny_sd3.network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    layers = get_peft_model_state_dict(tiny_sd3.network)
    about = tiny_sd3.network.peft_config["default"].to_dict()
    StableDiffusion3Pipeline.save_lora_weights(tmp_path, layers, transformer_lora_adapter_metadata=about)
    found = read(tmp_path / "pytorch_lora_weights.safetensors")
    assert sorted(found.factors) == [f"transformer_blocks.{i}.attn.to_q" for i in (0, 1)]
    for name, (a, b) in found.factors.items():
        delta = tiny_sd3.network.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(b @ a, delta)
        assert delta.norm() > 1


def test_the_header_tells_of_the_transformer(tiny_sd3, tmp_path):
    write(tmp_path / "a.safetensors", random_factors(tiny_sd3, mixed), HEADER, "diffusers")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert all(key.startswith("transformer.transformer_blocks.") for key in file.keys())  # noqa: SIM118
        described = json.loads(file.metadata()["lora_adapter_metadata"])
    assert described["transformer.r"] == described["transformer.lora_alpha"] == 5
    assert all(key.startswith("transformer.") for key in described)


def test_inspect_and_export_speak_of_a_transformer(tiny_sd3, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from aclora.cli.main import app

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.safetensors", random_factors(tiny_sd3), HEADER, "diffusers")
    inspect = CliRunner().invoke(app, ["inspect", "a.safetensors"])
    assert "transformer layers: 14, text encoder layers: 0" in inspect.output
    export = CliRunner().invoke(app, ["export", "a.safetensors", "--to", "peft", "--out", "p"])
    assert export.output == "p: peft, transformer layers: 14, rank 3\n"
    kohya = CliRunner().invoke(app, ["export", "a.safetensors", "--to", "kohya", "--out", "k.safetensors"])
    assert kohya.exit_code != 0
    assert not (tmp_path / "k.safetensors").exists()


def test_layers_tell_the_network_they_are_of(tiny, tiny_sd3):
    for model in (tiny, tiny_sd3):
        names = [n for n, m in model.network.named_modules() if isinstance(m, torch.nn.Linear)]
        assert {component_of([n]) for n in names} == {model.component}


def test_kohyas_format_is_refused_and_the_others_are_named(tmp_path):
    factors = {LAYER: (torch.ones(1, 4), torch.ones(4, 1))}
    for base in (None, "sd15"):
        with pytest.raises(
            InputError, match=r"^--to = 'kohya': must be diffusers or peft, for these are a transformer's"
        ):
            write(tmp_path / "a.safetensors", factors, {}, "kohya", base)
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(
    "key",
    [
        "lora_unet_joint_blocks_0_x_block_attn_qkv",  # kohya's of Stable Diffusion 3
        "lora_unet_double_blocks_0_img_attn_qkv",  # Flux's
        "lora_transformer_transformer_blocks_0_attn_to_q",  # OneTrainer's
    ],
)
def test_kohyas_files_of_transformers_are_refused_and_the_others_are_named(tmp_path, key):
    tensors = {f"{key}.lora_down.weight": torch.ones(1, 4), f"{key}.lora_up.weight": torch.ones(4, 1)}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=rf"{key}; .*save it in diffusers' or PEFT's format$"):
        read(tmp_path / "a.safetensors")


def test_a_name_without_its_network_is_refused(tmp_path):
    tensors = {f"{LAYER}.lora_A.weight": torch.ones(1, 4), f"{LAYER}.lora_B.weight": torch.ones(4, 1)}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=rf"nor a transformer's: it has {LAYER}; .* begin with transformer\.$"):
        read(tmp_path / "a.safetensors")

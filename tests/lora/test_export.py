"""Adapters in other programs' formats: every layer's change of weight as PEFT and diffusers load it."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from aclora.core.errors import InputError
from aclora.lora.bases import layers_of
from aclora.lora.export import save_kohya, scale_of_one, write
from aclora.lora.files import read
from aclora.lora.names import kohya_name, layer_name

HEADER = {
    "method": "aclora",
    "trigger": "zxq style",
    "base_model": "owner/model",
    "style": "fog",
    "fingerprint": "ab12",
}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
XL = {  # SDXL's blocks in small: no attention in the first, several transformers in the others
    "sample_size": 8,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "cross_attention_dim": 12,
    "attention_head_dim": (2, 2, 2),
    "norm_num_groups": 4,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,
}
SHALLOW = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 1,
    "attention_head_dim": (2, 2),
}


def xl_pipeline(**changes):
    """A StableDiffusionXLPipeline that has a UNet and nothing else."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    parts = dict.fromkeys(("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    return StableDiffusionXLPipeline(
        unet=UNet2DConditionModel(**XL | changes), scheduler=EulerDiscreteScheduler(), **parts
    )


@pytest.fixture(params=["sd", "sdxl", "sdxl of one layer a block"])
def pipe(request):
    if request.param == "sd":
        return request.getfixturevalue("tiny").pipe
    return xl_pipeline(**SHALLOW if "one" in request.param else {})


def save(place, factors, to, pipe, header=HEADER):
    """Write in a format; in kohya's with SGM's names where the small pipeline has SDXL's blocks, as SDXL's have."""
    if to == "kohya" and pipe.unet.config.addition_embed_type and pipe.unet.config.layers_per_block == 2:
        save_kohya(place, factors, header, "sdxl", "adapter")
    else:
        write(place, factors, header, to)


def random_factors(unet, rank=lambda i: 3, kinds=nn.Linear, ends=ATTENTION, dtype=torch.float32):
    """lora_A and lora_B of the layers whose names end so, the i-th of rank(i)."""
    rng = torch.Generator().manual_seed(0)
    factors = {}
    layers = [(n, m) for n, m in unet.named_modules() if isinstance(m, kinds) and n.endswith(ends)]
    for i, (name, layer) in enumerate(layers):
        d, *k = layer.weight.shape  # a convolution's factors are convolutions
        a, b = torch.randn(rank(i), *k, generator=rng), torch.randn(d, rank(i), *[1] * (len(k) - 1), generator=rng)
        factors[name] = (a.to(dtype), b.to(dtype))
    return factors


def mixed(i):
    return 1 + i % 5


def delta(unet, name, adapter):
    return unet.get_submodule(name).get_delta_weight(adapter)


def assert_loaded(unet, factors, adapter, exactly):
    adapted = {n for n, m in unet.named_modules() if hasattr(m, "lora_A")}
    assert adapted == set(factors)
    for name, (a, b) in factors.items():
        loaded, expected = delta(unet, name, adapter), (b.flatten(1) @ a.flatten(1)).reshape(b.shape[0], *a.shape[1:])
        if exactly:
            assert torch.equal(loaded, expected), name
        else:
            assert (loaded - expected).norm() <= 1e-6 * expected.norm(), name


@pytest.mark.parametrize("rank", [lambda i: 3, mixed], ids=["one rank", "mixed ranks"])
class TestLoaded:
    def test_peft_loads_the_folder_bit_for_bit(self, pipe, tmp_path, rank):
        from peft import PeftModel

        factors = random_factors(pipe.unet, rank)
        write(tmp_path / "peft", factors, HEADER, "peft")
        model = PeftModel.from_pretrained(pipe.unet, tmp_path / "peft")
        assert_loaded(model.base_model.model, factors, "default", exactly=True)

    def test_diffusers_loads_its_file_bit_for_bit(self, pipe, tmp_path, rank):
        factors = random_factors(pipe.unet, rank)
        write(tmp_path / "a.safetensors", factors, HEADER, "diffusers")
        pipe.load_lora_weights(tmp_path / "a.safetensors")
        assert_loaded(pipe.unet, factors, "default_0", exactly=True)

    def test_diffusers_loads_kohyas_file(self, pipe, tmp_path, rank):
        """Bit for bit where there is one rank; B is scaled where they differ."""
        factors = random_factors(pipe.unet, rank)
        save(tmp_path / "a.safetensors", factors, "kohya", pipe)
        pipe.load_lora_weights(tmp_path / "a.safetensors")
        assert_loaded(pipe.unet, factors, "default_0", exactly=rank is not mixed)


@pytest.mark.parametrize("to", ["peft", "diffusers", "kohya"])
@pytest.mark.parametrize("rank", [lambda i: 3, mixed], ids=["one rank", "mixed ranks"])
def test_what_is_written_is_read(pipe, tmp_path, to, rank):
    factors = random_factors(pipe.unet, rank)
    save(tmp_path / "a.safetensors", factors, to, pipe)
    found = read(tmp_path / "a.safetensors")
    assert (found.format, found.text_encoder) == (to, {})
    assert found.header.items() >= HEADER.items()
    assert set(found.factors) == set(factors)
    for name, (a, b) in factors.items():
        assert torch.equal(found.factors[name][0], a)
        if to == "kohya" and rank is mixed:
            torch.testing.assert_close(found.factors[name][1], b, rtol=2.5e-7, atol=0)
        else:
            assert torch.equal(found.factors[name][1], b)


@pytest.mark.parametrize("to", ["peft", "diffusers", "kohya"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_what_it_is(tiny, tmp_path, to, dtype):
    factors = random_factors(tiny.network, dtype=dtype)
    write(tmp_path / "a.safetensors", factors, {}, to)
    found = read(tmp_path / "a.safetensors").factors
    assert all(torch.equal(x, y) for n, pair in factors.items() for x, y in zip(found[n], pair, strict=True))


@pytest.mark.parametrize("to", ["peft", "diffusers", "kohya"])
def test_the_same_adapter_is_the_same_bytes(tiny, tmp_path, to):
    factors = random_factors(tiny.network, mixed)
    written = set()
    for i in range(5):
        place = tmp_path / f"{i}.safetensors"
        write(place, dict(sorted(factors.items(), reverse=i % 2)), HEADER, to)
        files = sorted(place.iterdir()) if to == "peft" else [place]
        written.add(b"".join(f.read_bytes() for f in files))
    assert len(written) == 1


@pytest.mark.parametrize("pipeline", ["sd", "sdxl"])
def test_convolutions_too(tiny, tmp_path, pipeline):
    pipe = tiny.pipe if pipeline == "sd" else xl_pipeline()
    blocks = {n: m for n, m in pipe.unet.named_modules() if "_block" in n and isinstance(m, (nn.Linear, nn.Conv2d))}
    factors = random_factors(pipe.unet, lambda i: 2, (nn.Linear, nn.Conv2d), tuple(blocks))
    assert {a.ndim for a, _ in factors.values()} == {2, 4}
    save(tmp_path / "a.safetensors", factors, "kohya", pipe, {})
    pipe.load_lora_weights(tmp_path / "a.safetensors")
    assert_loaded(pipe.unet, factors, "default_0", exactly=False)
    assert set(read(tmp_path / "a.safetensors").factors) == set(factors)


def test_every_name_of_an_sdxl_unet_comes_back(pipe):
    for name, layer in pipe.unet.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layers = pipe.unet.config.layers_per_block
            assert layer_name(kohya_name(name)) == name
            assert layer_name(kohya_name(name, layers), layers) == name


@pytest.mark.parametrize(
    ("layer", "sgm"),
    [  # as they stand in published SDXL adapters
        (
            "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q",
            "input_blocks_4_1_transformer_blocks_1_attn1_to_q",
        ),
        ("down_blocks.2.attentions.1.proj_in", "input_blocks_8_1_proj_in"),
        (
            "mid_block.attentions.0.transformer_blocks.9.attn2.to_out.0",
            "middle_block_1_transformer_blocks_9_attn2_to_out_0",
        ),
        (
            "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.0.proj",
            "output_blocks_2_1_transformer_blocks_0_ff_net_0_proj",
        ),
        (
            "up_blocks.1.attentions.2.transformer_blocks.1.attn2.to_k",
            "output_blocks_5_1_transformer_blocks_1_attn2_to_k",
        ),
        ("down_blocks.0.resnets.1.conv1", "input_blocks_2_0_in_layers_2"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks_3_0_op"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks_2_2_conv"),
        ("mid_block.resnets.1.time_emb_proj", "middle_block_2_emb_layers_1"),
    ],
)
def test_sdxl_has_the_original_names(layer, sgm):
    assert kohya_name(layer, 2) == f"lora_unet_{sgm}"
    assert layer_name(f"lora_unet_{sgm}") == layer


def test_a_layer_sdxl_has_no_name_for():
    with pytest.raises(InputError, match=r"layer foo.bar has no name in SDXL's kohya files"):
        kohya_name("foo.bar", 2)


def of_base(base, end, rank=3):
    """Factors of the layers of a base's UNet whose names end so."""
    rng = torch.Generator().manual_seed(0)
    return {
        layer: (torch.randn(rank, k, generator=rng), torch.randn(d, rank, generator=rng))
        for layer, (d, k, *_) in layers_of(base).items()
        if layer.endswith(end)
    }


@pytest.mark.parametrize("named", [True, False], ids=["--base", "told by the layers"])
def test_kohyas_header_tells_who_made_it_of_what_and_for_what(tmp_path, named):
    expected = {
        "sd15": ("sd_v1", "False", "stable-diffusion-v1/lora"),
        "sd21": ("sd_v2", "True", "stable-diffusion-v2-768-v/lora"),
        "sdxl": ("sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora"),
    }
    for base, (version, is_v2, architecture) in expected.items():
        factors = of_base(base, "attn2.to_k")
        wrong = {"ss_base_model_version": "sd3", "modelspec.architecture": "flux-1-dev/lora"}
        write(tmp_path / "a.safetensors", factors, HEADER | wrong, "kohya", base if named else None, name="other")
        with safe_open(tmp_path / "a.safetensors", "pt") as file:
            header = file.metadata()
        assert header.items() >= HEADER.items()
        assert header["ss_base_model_version"] == version
        assert (header["ss_v2"], header["modelspec.architecture"]) == (is_v2, architecture)
        assert (header["ss_network_module"], header["ss_network_dim"]) == ("networks.lora", "3")
        assert (header["ss_network_alpha"], header["ss_output_name"]) == ("3", "fog")
        assert header["modelspec.sai_model_spec"]
        assert header["modelspec.implementation"]
        assert (header["modelspec.title"], header["modelspec.trigger_phrase"]) == ("fog", "zxq style")
        assert set(read(tmp_path / "a.safetensors").factors) == set(factors)


def test_a_file_for_another_unet_names_no_base(tiny, tmp_path):
    """Whatever the header that it came with says."""
    wrong = {"ss_base_model_version": "sd_v1", "ss_v2": "False", "modelspec.architecture": "stable-diffusion-v1/lora"}
    write(tmp_path / "a.safetensors", random_factors(tiny.network), HEADER | wrong, "kohya")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        header = file.metadata()
    assert not header.keys() & {*wrong, "modelspec.implementation"}
    assert header["ss_network_dim"] == "3"


def test_kohyas_file_has_an_alpha_for_every_layer(tiny, tmp_path):
    factors = random_factors(tiny.network, mixed)
    write(tmp_path / "a.safetensors", factors, {}, "kohya")
    tensors = load_file(tmp_path / "a.safetensors")
    assert len(tensors) == 3 * len(factors)
    for name, (a, b) in factors.items():
        stem = "lora_unet_" + name.replace(".", "_")
        down, up, alpha = (tensors[f"{stem}.{end}"] for end in ("lora_down.weight", "lora_up.weight", "alpha"))
        assert alpha.shape == ()
        torch.testing.assert_close(alpha / len(down) * up @ down, b @ a, rtol=1e-5, atol=1e-6)


def test_a_header_from_elsewhere_keeps_what_it_says_of_the_adapter_alone(tiny, tmp_path):
    foreign = {"ss_network_dim": "128", "ss_learning_rate": "1e-4", "sshs_model_hash": "00", "modelspec.title": "Fog"}
    foreign |= {"lora_adapter_metadata": "{}", "modelspec.trigger_phrase": "in fog"}
    factors = random_factors(tiny.network)
    for to in ("diffusers", "kohya", "peft"):
        write(tmp_path / to / "a.safetensors", factors, foreign, to)
        header = read(tmp_path / to / "a.safetensors").header
        assert header["ss_learning_rate"] == "1e-4"
        assert (header["modelspec.title"], header["modelspec.trigger_phrase"]) == ("Fog", "in fog")
        assert "sshs_model_hash" not in header
        assert header.get("ss_network_dim") == ("3" if to == "kohya" else None)


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path):
    factors = {"up_blocks.0.attentions.0.proj_in": (torch.ones(1, 4), torch.ones(4, 1))}
    place = tmp_path / "new/a.safetensors"
    with pytest.raises(InputError, match=r"--base = 'sd3' is unknown; give one of sd15, sd21, sdxl"):
        write(place, factors, {}, "kohya", "sd3")
    with pytest.raises(InputError, match=r"--base is missing: .*; give one of sd15, sd21"):
        write(place, of_base("sd15", "attn1.to_q"), {}, "kohya")
    with pytest.raises(InputError, match=r"--to = 'onnx': must be one of peft, diffusers, kohya"):
        write(place, factors, {}, "onnx")
    with pytest.raises(InputError, match=r"nothing to write"):
        write(place, {}, {}, "peft")
    with pytest.raises(
        InputError, match=r"a.safetensors is not written: mid_block.x is not finite as torch.float16; lower"
    ):
        write(place, {"mid_block.x": (torch.full((1, 2), 1e9).half(), torch.ones(2, 1))}, {}, "diffusers")
    same = {f"mid_block.{name}": (torch.ones(1, 2), torch.ones(2, 1)) for name in ("a.b", "a_b")}
    with pytest.raises(InputError, match=r"layer mid_block.a_b and another have one name in kohya's files"):
        write(place, same, {}, "kohya")
    assert not place.parent.exists()


@pytest.mark.parametrize("to", ["peft", "diffusers"])
def test_the_end_of_another_layers_name_has_its_own_rank(tmp_path, to):
    """As Flux' proj_out and single_transformer_blocks.0.proj_out: PEFT takes a name for the end of longer ones."""
    from peft import LoraConfig, get_peft_model

    ranks = {"proj_out": 2, "blocks.proj_out": 3, "blocks.q": 5}
    factors = {layer: (torch.randn(rank, 8), torch.randn(8, rank)) for layer, rank in ranks.items()}
    place = tmp_path / "a.safetensors"
    write(place, factors, {}, to)
    assert {n: len(a) for n, (a, _) in read(place).factors.items()} == ranks
    model = nn.ModuleDict(
        {"proj_out": nn.Linear(8, 8), "blocks": nn.ModuleDict({n: nn.Linear(8, 8) for n in ("proj_out", "q")})}
    )
    made = get_peft_model(model, LoraConfig(**scale_of_one(factors)))
    assert {n: made.base_model.model.get_submodule(n).r["default"] for n in ranks} == ranks


def test_pefts_config_says_scale_one_for_every_rank(tiny, tmp_path):
    factors = random_factors(tiny.network, mixed)
    write(tmp_path, factors, HEADER, "peft")
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (5, 5, "owner/model")
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert config["rank_pattern"] == {n: len(a) for n, (a, _) in factors.items() if len(a) != 5}

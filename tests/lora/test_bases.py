"""Which of Stable Diffusion's UNets an adapter is for, by the shapes of its layers."""

import pytest
import torch
from torch import nn

from aclora.core.errors import InputError
from aclora.lora.bases import BASES, check_base, fitting_bases, guess_base, layers_of

WITH_ATTENTION = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
SD = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*[WITH_ATTENTION[0]] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *[WITH_ATTENTION[1]] * 3),
    "attention_head_dim": 8,
}
CONFIGS = {  # of the published unet/config.json, as far as shapes depend on them
    "sd15": SD | {"cross_attention_dim": 768},
    "sd21": SD | {"cross_attention_dim": 1024, "use_linear_projection": True},
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", *[WITH_ATTENTION[0]] * 2),
        "up_block_types": (*[WITH_ATTENTION[1]] * 2, "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


def pair(shape, rank=1):
    d, k, *kernel = shape
    return torch.zeros(rank, k, *kernel), torch.zeros(d, rank, *[1] * len(kernel))


def factors(base, end=""):
    return {layer: pair(shape) for layer, shape in layers_of(base).items() if layer.endswith(end)}


@pytest.mark.parametrize("base", BASES)
def test_every_layer_has_the_shape_that_diffusers_gives_it(base):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(in_channels=4, out_channels=4, **CONFIGS[base])
    shapes = {
        name: tuple(layer.weight.shape[:2] if layer.weight.shape[2:].numel() == 1 else layer.weight.shape)
        for name, layer in unet.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    }
    assert layers_of(base) == shapes


@pytest.mark.parametrize("base", BASES)
def test_its_own_base_is_told_by_the_layers(base):
    assert fitting_bases(factors(base)) == [base]
    assert guess_base(factors(base, "attn2.to_v"), {"ss_base_model_version": "sd3"}) == base
    check_base(factors(base), base)
    convolution = {"down_blocks.1.attentions.0.proj_in": pair((640, 640, 1, 1))}
    check_base(convolution, base)


def test_where_several_fit_the_header_decides():
    either = factors("sd15", "attn1.to_q")
    assert fitting_bases(either) == ["sd15", "sd21"]
    assert guess_base(either, {"ss_base_model_version": "sd_v2"}) == "sd21"
    for header in ({}, {"ss_base_model_version": "sdxl_base_v1-0"}):
        with pytest.raises(InputError, match=r"--base is missing: .*; give one of sd15, sd21$"):
            guess_base(either, header)


def test_the_layers_of_no_base_are_none_whatever_the_header_says():
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    for odd in ({layer: pair((640, 96))}, {layer: pair((320, 768))}, {"down_blocks.7.proj_in": pair((320, 320))}, {}):
        assert guess_base(odd, {"ss_base_model_version": "sd_v1"}) is None


@pytest.mark.parametrize(
    ("base", "made", "said"),
    [
        (
            "sd15",
            {"mid_block.attentions.0.proj_in": pair((32, 32))},
            r"is \(32, 32\), there it is \(1280, 1280\); leave",
        ),
        ("sd15", factors("sd21", "attn2.to_k"), r"is \(320, 1024\), there it is \(320, 768\); give sd21, or leave"),
        ("sdxl", factors("sd15", "attn1.to_q"), r"it has no such layer; give sd15 or sd21, or leave"),
        ("sd21", {"transformer_blocks.0.attn.to_q": pair((8, 8))}, r"it has no such layer; leave --base out"),
    ],
)
def test_another_base_is_refused_by_layer_and_shape(base, made, said):
    with pytest.raises(
        InputError, match=rf"^--base = '{base}' is not what .* layer {next(iter(made))}.*{said}"
    ) as error:
        check_base(made, base)
    assert "\n" not in str(error.value)

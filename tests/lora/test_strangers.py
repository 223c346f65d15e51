"""Adapter files that were made to break the reader: one line each, at once, and nothing is run or loaded for it."""

import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file

from aclora.core.errors import InputError
from aclora.lora.files import read
from aclora.report.lora_file import describe, description_text

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = "lora_unet_" + LAYER.replace(".", "_")
XL = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
BACKTRACKS = "(" * 12 + "[a-z0-9_.]+" + ")*" * 12 + "x"


def pair(d=6, k=5, r=2):
    return torch.ones(r, k), torch.ones(d, r)


def diffusers(a, b, layer=LAYER):
    return {f"unet.{layer}.lora_A.weight": a, f"unet.{layer}.lora_B.weight": b}


def kohya(a, b, alpha=None, layer=KOHYA):
    tensors = {f"{layer}.lora_down.weight": a, f"{layer}.lora_up.weight": b}
    return tensors if alpha is None else tensors | {f"{layer}.alpha": torch.as_tensor(alpha)}


def refused(place, tensors, said, header=None):
    file = place / "a.safetensors"
    save_file({k: v.clone() for k, v in tensors.items()}, file, header)
    return refused_file(file, said)


def refused_file(file, said):
    with pytest.raises(InputError, match=said) as error:
        read(file)
    assert str(error.value).startswith(str(file.parent))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    return str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("[]", "lora_adapter_metadata in its header is no JSON object"),
        ("null", "is no JSON object"),
        ("3", "is no JSON object"),
        ("", "is no JSON object"),
        ("[" * 100_000, "is no JSON object"),
        ('{"unet.r": ' + "9" * 5000 + "}", "is no JSON object"),
        ({"unet.r": "2"}, "r = '2': Input should be a valid integer"),
        ({"unet.r": 2.5}, "r = 2.5: Input should be"),
        ({"unet.r": True}, "r = True: Input should be"),
        ({"unet.r": None}, "r = None: Input should be"),
        ({"unet.r": 0}, "r = 0: Input should be greater"),
        ({"unet.r": 3}, "has rank 2, but its settings say 3"),
        ({"unet.r": 2, "unet.lora_alpha": float("nan")}, "lora_alpha = nan"),
        ({"unet.r": 2, "unet.lora_alpha": [2]}, r"lora_alpha = \[…\]"),
        ({"unet.r": 2, "unet.lora_alpha": 10**400}, "lora_alpha = 1000"),
        ({"unet.r": 2, "unet.lora_alpha": "2"}, "lora_alpha = '2'"),
        ({"unet.r": 2, "unet.rank_pattern": []}, r"rank_pattern = \[…\]"),
        ({"unet.r": 2, "unet.rank_pattern": {"to_q": None}}, "rank_pattern.to_q = None"),
        ({"unet.r": 2, "unet.rank_pattern": {"to_q": -2}}, "rank_pattern.to_q = -2"),
        ({"unet.r": 2, "unet.alpha_pattern": {"to_q": "4"}}, "alpha_pattern.to_q = '4'"),
        ({"unet.r": 2, "unet.alpha_pattern": "to_q"}, "alpha_pattern = 'to_q'"),
        ({"unet.r": 2, "unet.use_rslora": "yes"}, "use_rslora = 'yes'"),
        ({"unet.r": 2, "unet.use_dora": True}, "is DoRA"),
        ({"unet.r": 2, "unet.peft_type": "LOHA"}, "is LOHA, not the product"),
        ({"unet.r": 2, "unet.peft_type": ["\x1b[2J"]}, r"is \[…\], not the product"),
        ({"unet.r": 2, "unet.init_lora_weights": "pissa_niter_4"}, "changes the base model too"),
        ({"text_encoder.r": "x"}, "r = 'x'"),
    ],
)
def test_a_header_whose_settings_are_none(tmp_path, settings, said):
    text = settings if isinstance(settings, str) else json.dumps(settings)
    refused(tmp_path, diffusers(*pair()), said, {"lora_adapter_metadata": text})


@pytest.mark.parametrize(
    "pattern",
    [BACKTRACKS, "(to_q|to_k)", r"down_blocks.*attn\d.to_q", "to_q?", "", "^", r".*\.", "a b", "x" * 10**6, "ä"],
)
@pytest.mark.parametrize("knob", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_is_no_name_is_refused_and_never_run(tmp_path, knob, pattern):
    config = {"r": 2, "lora_alpha": 2, knob: {pattern: 2}}
    header = {"lora_adapter_metadata": json.dumps({f"unet.{k}": v for k, v in config.items()})}
    refused(tmp_path, diffusers(*pair()), f"{knob} has .*: must be a layer's name, for no expression is run", header)
    folder = tmp_path / "peft"
    folder.mkdir()
    tensors = diffusers(*pair())
    save_file(
        {k.replace("unet.", "base_model.model."): v for k, v in tensors.items()}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    refused_file(folder / "adapter_model.safetensors", f"{knob} has .*: must be a layer's name")


def test_very_many_patterns_take_no_longer_than_reading_them(tmp_path):
    """In one pass: names are looked up, not tried one after another."""
    layers = [f"down_blocks.0.attentions.{i}.proj_in" for i in range(2000)]
    tensors = {k: v for layer in layers for k, v in diffusers(*pair(), layer).items()}
    patterns = {f"x{i}.proj_in": 9 for i in range(50_000)} | {f"attentions.{i}.proj_in": 2 for i in range(2000)}
    said = {"unet.r": 3, "unet.lora_alpha": 4, "unet.rank_pattern": patterns}
    save_file(tensors, tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps(said)})
    found = read(tmp_path / "a.safetensors")
    assert all(torch.equal(b, 2 * pair()[1]) for _, b in found.factors.values())


@pytest.mark.parametrize(
    ("alpha", "said"),
    [
        ([1.0, 2, 3], r"alpha of shape \(3,\): must be one number"),
        ([], r"alpha of shape \(0,\)"),
        (float("nan"), "has alpha = nan"),
        (float("inf"), "has alpha = inf"),
        (0.0, "has alpha = 0: must be a number up to 1e6, not 0"),
        (1e30, r"has alpha = 1e\+30"),
        (True, "has alpha as BOOL; known are F16"),
    ],
)
def test_an_alpha_that_is_no_number(tmp_path, alpha, said):
    refused(tmp_path, kohya(*pair(), alpha), said)


@pytest.mark.parametrize("alpha", [[4.0], [[4]], -4, 4])
def test_one_number_is_an_alpha_in_any_shape(tmp_path, alpha):
    save_file(kohya(*pair(), alpha), tmp_path / "a.safetensors")
    sign = -1 if alpha == -4 else 1
    assert torch.equal(read(tmp_path / "a.safetensors").factors[LAYER][1], sign * 2 * pair()[1])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 0), (6, 2)),
        ((2, 5), (0, 2)),
        ((0, 5), (6, 0)),
        ((0, 2**60), (6, 0)),
        ((2,), (2,)),
        ((), ()),
        ((2, 5, 1), (6, 2, 1)),
        ((2, 5, 3, 3), (6, 2, 3, 3)),
        ((2, 5, 3, 3), (6, 2)),
        ((2, 5, *[1] * 60), (6, 2)),
        ((3, 5), (6, 2)),
    ],
)
def test_shapes_that_do_not_fit(tmp_path, a, b):
    refused(tmp_path, diffusers(torch.ones(a), torch.ones(b)), "has lora_A .* and lora_B .*, which do not fit")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.int64, torch.complex64])
def test_factors_of_whole_numbers(tmp_path, dtype):
    a, b = pair()
    refused(tmp_path, diffusers(a, b.to(dtype)), "has lora_B as .*; known are F16, BF16, F32, F64, F8_E4M3, F8_E5M2")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bits_become_half_precision_exactly(tmp_path, dtype):
    small, b = torch.tensor([[0.5, -1.75, 2**-6, 448, 0]]).to(dtype), pair()[1][:, :1].clone()
    save_file(diffusers(small, b), tmp_path / "a.safetensors")
    found = read(tmp_path / "a.safetensors").factors[LAYER][0]
    assert found.dtype == torch.float16
    assert torch.equal(found.double(), small.double())


def test_values_whose_product_is_beyond_float32(tmp_path):
    a, b = (m.double() for m in pair())
    refused(tmp_path, diffusers(a * 1e30, b * 1e30), "values beyond float32")
    refused(tmp_path, diffusers(a * 1e300, b), "is not finite")
    refused(tmp_path, kohya(a.float() * 1e30, b.float() * 1e8, 1e6), "is not finite|beyond float32")


@pytest.mark.parametrize(
    "other",
    [
        f"unet.{LAYER}.lora.down.weight",
        f"unet.{LAYER}.lora_down.weight",
        f"{LAYER}.lora_A.weight",
        f"unet.{LAYER.replace('attn1.', 'attn1.processor.')}_lora.down.weight",
    ],
)
def test_a_layer_under_two_names(tmp_path, other):
    a, b = pair()
    up = {"lora_A": "lora_B", "down": "up"}[("lora_A" if "lora_A" in other else "down")]
    again = {other: a, other.replace("lora_A", up).replace("down.weight", f"{up}.weight"): b}
    refused(tmp_path, diffusers(a, b) | again, "has both .* and .*, which are the same|twice, under two names")


@pytest.mark.parametrize("name", ["..", "", "a..b", "\x1b[31mred", "a\nb", "‮abc", "a b", "x" * 100_000, "../../etc"])
def test_a_name_that_no_layer_has(tmp_path, name):
    text = refused(tmp_path, diffusers(*pair(), name), "can be no layer's name")
    assert text.isprintable()


@pytest.mark.parametrize(
    "name", ["input_blocks_0_1_x", "input_blocks_" + "9" * 300 + "_1_x", "output_blocks_1_9_x", "x"]
)
def test_a_name_of_sgms_that_no_unet_has(tmp_path, name):
    refused(tmp_path, kohya(*pair(), 1, f"lora_unet_{name}"), "is not for a UNet")


@pytest.mark.parametrize("blocks", ["²", "0", "-1", "x", "", "1e9", "9" * 5000, "٣"])
def test_layers_per_block_is_a_small_number(tmp_path, blocks):
    refused(tmp_path, kohya(*pair(), 1, XL), "layers_per_block = .*: must be 1 to 16", {"layers_per_block": blocks})


def test_names_count_by_the_headers_layers_per_block(tmp_path):
    for blocks, layer in (("1", "down_blocks.1.attentions.1"), ("2", "down_blocks.1.attentions.0")):
        save_file(kohya(*pair(), 1, XL), tmp_path / "a.safetensors", {"layers_per_block": blocks})
        assert list(read(tmp_path / "a.safetensors").factors) == [f"{layer}.transformer_blocks.0.attn1.to_q"]


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{}",
        raw(b"{}" * 2),
        raw(b"[" * 10_000),
        raw([]),
        raw({"x": 3}),
        raw({"x": {"dtype": "F4", "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
        raw({"x": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}, b"\0" * 4),
        raw({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
        raw({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"\0" * 4),
        raw({"__metadata__": {"a": 1}}),
        raw({"__metadata__": {"a": {"b": "c"}}}),
    ],
)
def test_a_file_that_is_no_safetensors_file(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    refused_file(tmp_path / "a.safetensors", "is no whole safetensors file .*: save or fetch it again")


@pytest.mark.parametrize("key", ["a\nb\x1b[2J", "\u202ex", "y" * 100_000])
def test_a_key_is_quoted_as_text(tmp_path, key):
    for text in (
        refused(tmp_path, {key: torch.ones(1)}, "holds no LoRA: its keys are "),
        refused(tmp_path, diffusers(*pair()) | {key: torch.ones(1)}, "is no factor of a LoRA"),
    ):
        assert text.isprintable()


def test_an_empty_file_of_tensors(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(raw({"__metadata__": {"format": "pt"}}))
    refused_file(tmp_path / "a.safetensors", "holds no LoRA: its keys are none")


def test_a_checkpoint_of_a_whole_model_is_not_loaded(tmp_path):
    """It is known by its names: a file that has no bytes behind its first pages is enough."""
    size = 2**32
    header = raw({"model.weight": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}})
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
    refused_file(tmp_path / "a.safetensors", "holds no LoRA: its keys are model.weight")


@pytest.mark.parametrize("config", [b"[]", b"\xff\xfe", b"{", b"null", b"[" * 100_000, b"9" * 5000])
def test_pefts_config_that_is_no_object(tmp_path, config):
    save_file({"base_model.model.x.lora_A.weight": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes(config)
    refused_file(tmp_path / "adapter_model.safetensors", "adapter_config.json is no JSON object")


def test_pefts_config_that_is_no_file(tmp_path):
    save_file({"base_model.model.x.lora_A.weight": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    os.mkfifo(tmp_path / "adapter_config.json")
    refused_file(tmp_path / "adapter_model.safetensors", "adapter_config.json is no file")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    refused_file(tmp_path / "a.safetensors", "is neither a file nor a folder")
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        read(tmp_path / ("x" * 5000))


def test_the_text_of_a_description_has_no_control_characters(tmp_path):
    hostile = {"trigger": "\x1b]0;owned\x07 ‮red\n\x9b31m", "\x1b[2J": "x", "long": "\x1b" * 10_000, "l" * 9999: "y"}
    hostile |= {f"z{i}": "x" for i in range(5000)}
    file = tmp_path / "a\x1b[31m\u202e.safetensors"
    save_file(diffusers(*pair()), file, hostile)
    found = describe(file)
    lines = description_text(found).split("\n")
    assert all(line.isprintable() and len(line) < 700 for line in lines)
    assert len(lines) < 120
    assert any(r"trigger: \x1b]0;owned\x07 \u202ered \x9b31m" in line for line in lines)
    assert found["header"] == hostile
    assert all(line.isprintable() for line in json.dumps(found, indent=1).split("\n"))

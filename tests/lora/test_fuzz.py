"""Adapter files by the hundred, made by rules and by damage: each is read and written, or refused in one line."""

import json
import shutil
import struct
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from aclora.core.errors import InputError
from aclora.lora.export import FORMATS, save_diffusers, save_kohya, write
from aclora.lora.files import read
from aclora.lora.resize import resize
from aclora.report.lora_file import describe, description_text

# the same examples each time; the deadline finds what hangs, on a busy machine too
FIXED = settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=timedelta(seconds=30),
    suppress_health_check=list(HealthCheck),
)
LAYERS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_out.0",
    "mid_block.attentions.0.proj_in",
    "transformer_blocks.3.attn.to_k",
    "text_model.encoder.layers.0.self_attn.q_proj",
    "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
    "conv_in",
)
PREFIXES = (
    "unet.",
    "",
    "transformer.",
    "base_model.model.",
    "lora_unet_",
    "lora_te_",
    "text_encoder.",
    "text_encoder_2.",
)
ENDS = (
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_down.weight", ".lora_up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
)
ODD_KEYS = (
    ".alpha",
    "x.alpha",
    "..lora_A.weight",
    "\x1b[2J.lora_A.weight",
    "lora_unet_x.hada_w1_a",
    "a.lora_E",
    "",
    "‮",
)
SIZES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "I64": 8, "BOOL": 1, "C64": 8}
SIZES |= {"F8_E8M0": 1, "U16": 2, "U64": 8}
FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def mostly(usual, odd):
    """The usual in most cases, so that examples come further than the first check."""
    return st.integers(0, 24).flatmap(lambda n: odd if n == 7 else usual)


odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    st.just(10**400),
    st.text(max_size=5),
    st.lists(st.integers(0, 2), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(0, 9), max_size=2),
)
names = mostly(st.sampled_from((*LAYERS, "to_q", "^conv_in", r".*\.proj_in")), st.text(max_size=6) | st.just("(a+)+$"))
patterns = mostly(st.dictionaries(names, mostly(st.integers(1, 4), odd_values), max_size=3), odd_values)
config = st.fixed_dictionaries(
    {"r": mostly(st.integers(1, 3), odd_values)},
    optional={
        "lora_alpha": mostly(st.sampled_from([1, 2, 8, 0.5]), odd_values),
        "rank_pattern": patterns,
        "alpha_pattern": patterns,
        "use_rslora": mostly(st.booleans(), odd_values),
        "use_dora": mostly(st.just(False), odd_values),
        "peft_type": mostly(st.just("LORA"), odd_values | st.sampled_from(["LOHA", "ADALORA"])),
        "init_lora_weights": mostly(st.just(True), odd_values | st.sampled_from(["pissa", "eva"])),
        "base_model_name_or_path": mostly(st.just("owner/model"), odd_values),
        "more": odd_values,
    },
)


@st.composite
def said_in_header(draw):
    said = draw(config)
    part = draw(mostly(st.sampled_from(["unet.", "transformer."]), st.text(max_size=5)))
    whole = json.dumps({f"{part}{k}": v for k, v in said.items()})
    return draw(mostly(st.just(whole), st.text(max_size=6) | st.sampled_from(["[]", "null", whole[:-3], "[" * 9999])))


header = st.fixed_dictionaries(
    {},
    optional={
        "lora_adapter_metadata": said_in_header(),
        "layers_per_block": mostly(st.sampled_from(["1", "2"]), st.text(max_size=3) | st.just("²")),
        "ss_base_model_version": st.sampled_from(["sd_v1", "sdxl_base_v1-0", "", "\x1b"]),
        "ss_network_dim": st.text(max_size=4),
        "trigger": st.text(max_size=8),
        "format": st.sampled_from(["pt", "tf", ""]),
        "modelspec.title": st.text(max_size=8),
    },
)


@st.composite
def a_layer(draw, prefix):
    """The keys of a layer with dtype, shape and bytes; rarely something is wrong with it."""
    name = draw(mostly(st.just(prefix), st.sampled_from(PREFIXES))) + draw(
        mostly(st.sampled_from(LAYERS), st.text(max_size=9))
    )
    if name.startswith("lora_"):
        name = name.replace(".", "_")
    down, up = draw(mostly(st.just(ENDS["lora_" in name]), st.sampled_from(ENDS)))
    r, k, d = draw(mostly(st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.sampled_from([0, 1, 7])] * 3)))
    kernel = draw(mostly(st.just(()), st.sampled_from([(1, 1), (3, 3), (2,)])))
    dtype = draw(mostly(st.sampled_from(list(FLOATS)), st.sampled_from(list(SIZES))))
    shapes = {down: (r, k, *kernel), up: (d, r, *[1] * len(kernel))}
    if draw(st.booleans()):
        shapes[".alpha"] = draw(mostly(st.just(()), st.sampled_from([(1,), (3,), (0,)])))
    for end in draw(mostly(st.just([]), st.lists(st.sampled_from(list(shapes)), max_size=1))):
        shapes[end] = draw(st.lists(st.integers(0, 3), max_size=5))
    scale = draw(mostly(st.sampled_from([1, 0, -2]), st.sampled_from([float("nan"), float("inf"), 1e4, 1e30, 1e300])))
    return {f"{name}{end}": _stored(dtype, tuple(shape), scale, len(name)) for end, shape in shapes.items()}


def _stored(dtype, shape, scale, seed):
    count = torch.Size(shape).numel()
    if dtype not in FLOATS:
        return dtype, shape, bytes(range(1, 256)) * (count * SIZES[dtype] // 255 + 1)
    values = (torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5) * scale
    return dtype, shape, values.to(FLOATS[dtype]).view(torch.uint8).numpy().tobytes()


@st.composite
def a_file(draw):
    """A safetensors file, byte by byte, so that it can hold what no library writes."""
    prefix = draw(st.sampled_from(PREFIXES))
    tensors = {}
    for layer in draw(st.lists(a_layer(prefix), min_size=1, max_size=4)):
        tensors |= layer
    for key in draw(mostly(st.just([]), st.lists(st.sampled_from(ODD_KEYS), max_size=2))):
        tensors[key] = _stored("F32", (1,), 1, 0)
    said, data = {"__metadata__": draw(header)}, b""
    for key, (dtype, shape, content) in tensors.items():
        content = content[: torch.Size(shape).numel() * SIZES[dtype]]
        said[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(said).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def try_all(source, folder):
    """Inspect, cut and write an adapter in every format; what is refused is so in one line and leaves nothing.

    Returns how many times it was written.
    """
    out, written = Path(folder, "out"), 0
    if (found := one_line_or(lambda: describe(source))) is None:
        return 0
    assert all(line.isprintable() for line in description_text(found).split("\n"))
    json.dumps(found, allow_nan=False)
    file = read(source)
    for to in FORMATS:
        for cut in ({}, {"rank": 1}, {"energy": 0.9, "per_layer": False}):
            place = out / ("folder" if to == "peft" else "a.safetensors")
            shutil.rmtree(out, ignore_errors=True)
            factors = one_line_or(lambda: cut_and_write(file, cut, place, to))  # noqa: B023, called at once
            if factors is None:
                assert not out.exists()
                continue
            again, written = read(place).factors, written + 1
            assert again.keys() == factors.keys() == file.factors.keys()
            for layer, pair in factors.items():
                (a, b), (x, y) = ([m.double().flatten(1) for m in p] for p in (pair, again[layer]))
                torch.testing.assert_close(y @ x, b @ a, rtol=1e-5, atol=1e-5 * float((b @ a).abs().max()))
    return written


def cut_and_write(file, cut, place, to):
    factors, _ = resize(file.factors, **cut)
    write(place, factors, file.header, to)
    return factors


def one_line_or(work):
    """What `work` gives; None where it refused in one line."""
    try:
        return work()
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 2000
    return None


def test_any_file_is_read_and_written_or_refused_in_one_line(folder):
    written = []

    @FIXED
    @given(a_file())
    def tried(content):
        source = folder / "a.safetensors"
        source.write_bytes(content)
        written.append(try_all(source, folder))

    tried()
    assert sum(count > 0 for count in written) > len(written) / 10  # the rules make adapters too, not only faults


def test_any_folder_of_pefts_is_read_and_written_or_refused_in_one_line(folder):
    place, written = folder / "peft", []
    place.mkdir()

    @FIXED
    @given(a_layer("base_model.model."), config)
    def tried(tensors, said):
        data, listed = b"", {}
        for key, (dtype, shape, content) in tensors.items():
            content = content[: torch.Size(shape).numel() * SIZES[dtype]]
            listed[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
            data += content
        text = json.dumps(listed).encode()
        (place / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
        (place / "adapter_config.json").write_text(json.dumps(said), encoding="utf-8")
        written.append(try_all(place, folder))

    tried()
    assert sum(count > 0 for count in written) > len(written) / 20


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_any_damage_to_a_file_is_borne(folder, form):
    factors = {layer: (torch.rand(2, 5), torch.rand(6, 2)) for layer in LAYERS[:3]}
    source, said = folder / "damaged.safetensors", {"trigger": "zxq", "layers_per_block": "2"}
    if form == "kohya":
        save_kohya(source, factors, said, "sdxl", "a")
    else:
        save_diffusers(source, factors, said)
    whole = source.read_bytes()

    @FIXED
    @given(st.data())
    def tried(data):
        content = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            size = struct.unpack("<Q", whole[:8])[0]
            at = data.draw(st.integers(0, size + 8) | st.integers(0, len(whole) - 1))  # the header is what breaks
            how = data.draw(st.sampled_from(["flip", "cut", "put", "length", "drop"]))
            if how == "flip":
                content[at % max(1, len(content))] ^= 1 << data.draw(st.integers(0, 7))
            if how == "cut":
                del content[at:]
            if how == "drop":
                del content[at : at + data.draw(st.integers(1, 9))]
            if how == "put":
                content[at:at] = data.draw(st.binary(max_size=9))
            if how == "length":
                content[:8] = struct.pack(
                    "<Q", data.draw(st.sampled_from([0, 1, size - 1, size + 1, 2**40, 2**64 - 1]))
                )
            content = content or bytearray(b"\0")
        source.write_bytes(bytes(content))
        try_all(source, folder)

    tried()


def test_the_smallest_file_is_none(folder):
    source = folder / "small.safetensors"
    source.write_bytes(save({"x.alpha": torch.ones(())}))
    assert try_all(source, folder) == 0

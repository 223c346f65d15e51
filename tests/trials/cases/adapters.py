"""Adapter files from strangers: `aclora inspect`, `export` and `resize` read them."""

import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator

import torch
from safetensors.torch import save

from tests.trials.case import Case
from tests.trials.cases.networks import Payload
from tests.trials.tree import ADAPTER, TOUCHED, Tree

KIND = "adapter files"
GOOD = f"{ADAPTER}/pytorch_lora_weights.safetensors"
LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
FILE = "stranger.safetensors"
INSPECT = ("aclora", "inspect", FILE)
EXPORT = ("aclora", "export", FILE, "--to", "peft", "--out", "made")
RESIZE = ("aclora", "resize", FILE, "--out", "made.safetensors", "--rank", "2")


def pair(rank: int = 4, wide: int = 64, tall: int = 64, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(rank, wide, dtype=dtype), torch.ones(tall, rank, dtype=dtype)


def factors(a: torch.Tensor, b: torch.Tensor, layer: str = LAYER) -> dict[str, torch.Tensor]:
    return {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}


def kohya(a: torch.Tensor, b: torch.Tensor, alpha=None) -> dict[str, torch.Tensor]:
    found = {f"{KOHYA}.lora_down.weight": a, f"{KOHYA}.lora_up.weight": b}
    return found | ({f"{KOHYA}.alpha": alpha} if alpha is not None else {})


def raw(header: bytes | dict, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def cases() -> Iterator[Case]:
    yield from broken()
    yield from shapes()
    yield from places()


def three(
    name: str, content: bytes | Callable[[Tree], object], says: str = "stranger", answer="error"
) -> Iterator[Case]:
    """A file under all three commands."""
    spoil = content if callable(content) else lambda tree: tree.write(FILE, content)
    for command in (INSPECT, EXPORT, RESIZE):
        yield Case(f"{command[1]}: {name}", spoil, says, answer, command)


def tensors(
    name: str, found: dict, header: dict | None = None, says: str = "stranger", answer="error"
) -> Iterator[Case]:
    yield from three(name, save(found, {"format": "pt", **(header or {})}), says, answer)


def broken() -> Iterator[Case]:
    yield from three("missing", lambda tree: None)
    yield from three("empty", b"")
    yield from three("four bytes", b"1234")
    yield from three("text", b"<html>404</html>")
    yield from three("cut", lambda tree: tree.write(FILE, tree.read(GOOD)[:-1000]))
    yield from three("more bytes than its header says", lambda tree: tree.write(FILE, tree.read(GOOD) + b"\0" * 8))
    yield from three("an endless header", raw(b"{" * 200_000))
    yield from three("a header of 2⁶³ bytes", struct.pack("<Q", 2**63) + b"{}")
    yield from three("a header of nothing", raw(b"{}"))
    yield from three("a header that is a list", raw(b"[]"))
    at = {f"{LAYER}.lora_A.weight": {"dtype": "F32", "shape": [4, 64], "data_offsets": [0, 2**50]}}
    yield from three("offsets beyond the file", raw(at))
    yield from three(
        "a tensor of 2⁴⁰ numbers",
        raw({"x": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 4]}}, b"\0" * 4),
    )
    yield from three("an unknown dtype", raw({"x": {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4))
    yield from three(
        "a key twice",
        raw(
            b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"\0" * 4,
        ),
    )
    yield from three("a pickle under that name", lambda tree: torch.save({"x": Payload()}, tree.path(FILE)))
    yield from three("a bare pickle", pickle.dumps({"x": 1}) + f"touch {TOUCHED}".encode())
    yield Case(
        "inspect: a pickle",
        lambda tree: torch.save({"x": Payload()}, tree.path("x.pt")),
        "pickle",
        command=("aclora", "inspect", "x.pt"),
    )
    yield Case("inspect: a folder", lambda tree: tree.path(FILE).mkdir(), "stranger", command=INSPECT)
    yield Case("inspect: a named pipe", lambda tree: os.mkfifo(tree.path(FILE)), "stranger", command=INSPECT)
    yield Case("inspect: a link to itself", lambda tree: tree.path(FILE).symlink_to(FILE), "stranger", command=INSPECT)
    yield Case(
        "inspect: a device without an end",
        lambda tree: tree.path(FILE).symlink_to("/dev/zero"),
        "stranger",
        command=INSPECT,
    )


def shapes() -> Iterator[Case]:
    a, b = pair()
    yield from tensors("A alone", {f"{LAYER}.lora_A.weight": a})
    yield from tensors("B alone", {f"{LAYER}.lora_B.weight": b})
    yield from tensors("no LoRA", {"weight": a})
    yield from tensors("a whole checkpoint", {"model.diffusion_model.input_blocks.0.0.weight": a})
    yield from tensors("factors that do not fit", factors(a, pair(5)[1]))
    yield from tensors("factors exchanged", factors(b, a), None, "stranger|base", "sound")
    yield from tensors("rank 0", factors(torch.ones(0, 64), torch.ones(64, 0)))
    yield from tensors("k = 0", factors(torch.ones(4, 0), b))
    yield from tensors("d = 0", factors(a, torch.ones(0, 4)))
    yield from tensors("one dimension", factors(torch.ones(4), torch.ones(4)))
    yield from tensors("no dimension", factors(torch.tensor(1.0), torch.tensor(1.0)))
    yield from tensors("three dimensions", factors(torch.ones(4, 8, 8), torch.ones(64, 4, 1)))
    yield from tensors("five dimensions", factors(torch.ones(4, 8, 1, 1, 1), torch.ones(8, 4, 1, 1, 1)))
    yield from tensors("whole numbers", factors(a.long(), b.long()))
    yield from tensors("true and false", factors(a.bool(), b.bool()))
    yield from tensors("complex numbers", factors(a.to(torch.complex64), b.to(torch.complex64)))
    yield from tensors("two dtypes", factors(a.half(), b.double()), None, "stranger", "sound")
    yield from tensors(
        "float8", factors(a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn)), None, "stranger", "sound"
    )
    yield from tensors("bfloat16", factors(a.bfloat16(), b.bfloat16()), None, "", "sound")
    for value in ("nan", "inf", "-inf"):
        yield from tensors(f"one {value}", factors(a.index_fill(1, torch.tensor([3]), float(value)), b))
    yield from tensors("overflow in the product", factors(a * 3e38, b * 3e38), None, "stranger|finite")
    yield from tensors("nothing but zeros", factors(a * 0, b * 0), None, "stranger", "sound")
    for shown, alpha in (
        ("of three elements", torch.ones(3)),
        ("of none", torch.ones(0)),
        ("NaN", torch.tensor(float("nan"))),
        ("infinite", torch.tensor(float("inf"))),
        ("of 2 × 2", torch.ones(2, 2)),
        ("complex", torch.tensor(1j)),
        ("true", torch.tensor(True)),
    ):
        yield from tensors(f"an alpha {shown}", kohya(a, b, alpha), None, "stranger|base")
    for shown, alpha in (
        ("of 0", torch.tensor(0.0)),
        ("below 0", torch.tensor(-4.0)),
        ("of 1e38", torch.tensor(1e38)),
        ("of one element", torch.ones(1)),
    ):
        yield from tensors(f"an alpha {shown}", kohya(a, b, alpha), None, "stranger|finite|base", "sound")
    yield from tensors("an empty name of a layer", {".lora_A.weight": a, ".lora_B.weight": b})
    yield from tensors("dots for a layer", factors(a, b, "unet....."), None, "stranger", "sound")
    yield from tensors(
        "an escape in a layer's name", factors(a, b, f"{LAYER}.\x1b[31mred\x1b]0;title\a"), None, "stranger", "sound"
    )
    yield from tensors(
        "a line break in a layer's name", factors(a, b, f"{LAYER}.a\nerror: b"), None, "stranger", "sound"
    )
    yield from tensors("a layer of 100,000 letters", factors(a, b, "unet." + "x" * 100_000), None, "stranger", "sound")
    yield from tensors(
        "a text encoder alone",
        factors(a, b, "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"),
        None,
        "stranger|nothing to",
        "sound",
    )


def places() -> Iterator[Case]:
    """Where an export is written to."""

    def out(place: str, says: str = "out", to: str = "diffusers", answer="error") -> Case:
        name = f"export --to {to} --out {place[:40]!r}"
        return Case(name, prepare, says, answer, ("aclora", "export", GOOD, "--to", to, "--out", place))

    def prepare(tree):
        tree.write("file", "x")
        tree.path("folder.safetensors").mkdir()
        tree.path("loop.safetensors").symlink_to("loop.safetensors")
        tree.write("full/keep.txt", "mine")

    for place in (
        "",
        " ",
        "folder.safetensors",
        "x.bin",
        "file/x.safetensors",
        "loop.safetensors",
        "/dev/full",
        "/proc/x.safetensors",
        "x" * 300 + ".safetensors",
        "a\nb.bin",
        GOOD,
        f"./{GOOD}",
    ):
        yield out(place)
    for place in ("file", "file/x", "", "x" * 300, "/proc/x", "/dev/null"):
        yield out(place, to="peft")
    yield Case(
        "export into the adapter's own folder",
        lambda tree: None,
        "out",
        "error",
        ("aclora", "export", GOOD, "--to", "diffusers", "--out", f"{ADAPTER}/signal.safetensors"),
    )
    yield Case(
        "resize over itself",
        lambda tree: None,
        "out",
        "error",
        ("aclora", "resize", GOOD, "--rank", "2", "--out", GOOD),
    )

"""The UNets of Stable Diffusion 1.x, 2.x and XL: which layers they have, of which shapes, and which one factors fit."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from aclora.core.errors import InputError
from aclora.lora.files import Factors

BASES = {  # as kohya's trainers name them: ss_base_model_version, modelspec.architecture, its implementation
    "sd15": ("sd_v1", "stable-diffusion-v1", "diffusers"),
    "sd21": ("sd_v2", "stable-diffusion-v2-768-v", "diffusers"),
    "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base", "https://github.com/Stability-AI/generative-models"),
}
LAYERS = 2  # a block, in each of them


class _UNet(NamedTuple):
    widths: tuple[int, ...]  # of the down blocks
    depths: tuple[int, ...]  # transformers in each attention of a down block
    text: int  # width of what the cross-attention reads
    added: int = 0  # width of SDXL's sizes and pooled text


_UNETS = {
    "sd15": _UNet((320, 640, 1280, 1280), (1, 1, 1, 0), 768),
    "sd21": _UNet((320, 640, 1280, 1280), (1, 1, 1, 0), 1024),
    "sdxl": _UNet((320, 640, 1280), (0, 2, 10), 2048, 2816),
}

Shape = tuple[int, ...]


@cache
def layers_of(base: str) -> dict[str, Shape]:
    """A base's layers by diffusers' names: (d, k) of linear ones and 1 × 1 convolutions, (d, k, 3, 3) of others."""
    return dict(_layers(_UNETS[base]))


def fitting_bases(factors: Factors) -> list[str]:
    """The keys of BASES whose UNet has each of the layers, in its shape; of no layers none."""
    return [base for base in BASES if factors and _misfit(factors, base) is None]


def check_base(factors: Factors, base: str) -> None:
    """Raise `InputError` unless each layer is one of the base's, in its shape; `base` is what --base named."""
    if base not in BASES:
        raise InputError(f"--base = {base!r} is unknown; give one of {', '.join(BASES)}")
    layer = _misfit(factors, base)
    if layer is None:
        return
    known = layers_of(base).get(layer)
    has = f"there it is {known}" if known else "it has no such layer"
    fits = fitting_bases(factors)
    advice = f"give {' or '.join(fits)}, or leave --base out" if fits else "leave --base out"
    raise InputError(
        f"--base = {base!r} is not what the adapter was trained on: its layer {layer} is {_shape(factors[layer])}, "
        f"{has}; {advice}"
    )


def guess_base(factors: Factors, header: dict[str, str]) -> str | None:
    """The key of BASES whose layers the factors are; None where they are those of none.

    Where several fit, the header decides. Raises `InputError` where it does not tell.
    """
    fits = fitting_bases(factors)
    if len(fits) < 2:
        return fits[0] if fits else None
    said = header.get("ss_base_model_version")
    known = next((base for base in fits if BASES[base][0] == said), None)
    if known is None:
        raise InputError(f"--base is missing: the layers do not tell the base model; give one of {', '.join(fits)}")
    return known


def _misfit(factors, base):
    known = layers_of(base)
    return next((layer for layer, pair in factors.items() if known.get(layer) != _shape(pair)), None)


def _shape(pair) -> Shape:
    """The shape of ΔW; a 1 × 1 convolution's as that of the linear layer that it is."""
    a, b = pair
    kernel = tuple(a.shape[2:])
    return (b.shape[0], a.shape[1], *(() if kernel == (1, 1) else kernel))


def _layers(unet: _UNet) -> Iterator[tuple[str, Shape]]:
    widths, last, time = unet.widths, len(unet.widths) - 1, 4 * unet.widths[0]
    yield "conv_in", (widths[0], 4, 3, 3)
    yield "conv_out", (4, widths[0], 3, 3)
    for name, width in (("time_embedding", widths[0]), ("add_embedding", unet.added)):
        if width:
            yield f"{name}.linear_1", (time, width)
            yield f"{name}.linear_2", (time, time)
    for i, width in enumerate(widths):
        before = widths[max(0, i - 1)]
        for j in range(LAYERS):
            yield from _block(f"down_blocks.{i}", j, width, width if j else before, time, unet.depths[i], unet.text)
        if i < last:
            yield f"down_blocks.{i}.downsamplers.0.conv", (width, width, 3, 3)
    for j in range(2):
        depth = 0 if j else next(depth for depth in reversed(unet.depths) if depth)
        yield from _block("mid_block", j, widths[-1], widths[-1], time, depth, unet.text)
    for i, width in enumerate(reversed(widths)):
        before, skipped = widths[min(last, last - i + 1)], widths[max(0, last - i - 1)]
        for j in range(LAYERS + 1):  # each reads what came before, beside what a down block made
            reads = (width if j else before) + (skipped if j == LAYERS else width)
            yield from _block(f"up_blocks.{i}", j, width, reads, time, unet.depths[last - i], unet.text)
        if i < last:
            yield f"up_blocks.{i}.upsamplers.0.conv", (width, width, 3, 3)


def _block(block, j, width, reads, time, depth, text) -> Iterator[tuple[str, Shape]]:
    """A block's j-th resnet, which reads `reads` channels, and its attention of `depth` transformers."""
    resnet, attention = f"{block}.resnets.{j}", f"{block}.attentions.{j}"
    yield f"{resnet}.conv1", (width, reads, 3, 3)
    yield f"{resnet}.conv2", (width, width, 3, 3)
    yield f"{resnet}.time_emb_proj", (width, time)
    if reads != width:
        yield f"{resnet}.conv_shortcut", (width, reads)
    for end in ("proj_in", "proj_out") if depth else ():
        yield f"{attention}.{end}", (width, width)
    for n in range(depth):
        inner = f"{attention}.transformer_blocks.{n}"
        for attn, context in (("attn1", width), ("attn2", text)):
            yield f"{inner}.{attn}.to_q", (width, width)
            yield f"{inner}.{attn}.to_k", (width, context)
            yield f"{inner}.{attn}.to_v", (width, context)
            yield f"{inner}.{attn}.to_out.0", (width, width)
        yield f"{inner}.ff.net.0.proj", (8 * width, width)
        yield f"{inner}.ff.net.2", (width, 4 * width)

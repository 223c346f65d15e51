"""The names of a network's layers: diffusers', and for UNets kohya's, with its own for SDXL.

kohya's trainers join diffusers' names with underscores. For SDXL they use the names of the original implementation
(SGM), which numbers all blocks in one row: with L layers a block, every down block has L + 1 places (the last for its
downsampler) after the first convolution, and every up block L + 1.
"""

import re
from collections.abc import Iterable

from aclora.core.errors import InputError

PREFIX = "lora_unet_"
COMPONENTS = ("unet", "transformer")  # the networks that learn, as diffusers' pipelines and LoRA files name them
XL_LAYERS = 2  # SDXL's layers_per_block
MAX_LAYERS_PER_BLOCK = 16
# the parts of names that have underscores of their own
_WORDS = (
    *("down_blocks", "mid_block", "up_blocks", "transformer_blocks", "to_q", "to_k", "to_v", "to_out"),
    *("proj_in", "proj_out", "conv_in", "conv_out", "conv_shortcut", "time_emb_proj"),
    *("time_embedding", "add_embedding", "linear_1", "linear_2"),
)
_UNET = re.compile(r"(down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding|add_embedding)(\.|$)")
_RESNET = {
    "conv1": "in_layers_2",
    "time_emb_proj": "emb_layers_1",
    "conv2": "out_layers_3",
    "conv_shortcut": "skip_connection",
}
_SINGLE = {
    "conv_in": "input_blocks_0_0",
    "conv_out": "out_2",
    "time_embedding.linear_1": "time_embed_0",
    "time_embedding.linear_2": "time_embed_2",
    "add_embedding.linear_1": "label_emb_0_0",
    "add_embedding.linear_2": "label_emb_0_2",
}


def component_of(layers: Iterable[str]) -> str:
    """Which network has layers of these diffusers names: unet, or transformer for any but a UNet's."""
    return "unet" if all(_UNET.match(layer) for layer in layers) else "transformer"


def network_label(layers: Iterable[str]) -> str:
    """The same for people: UNet or transformer."""
    return {"unet": "UNet"}.get(component := component_of(layers), component)


def kohya_name(layer: str, sgm_layers: int | None = None) -> str:
    """A layer's kohya name from diffusers' one; in SGM block names if `sgm_layers`, the layers per block, is given.

    Raises `InputError` for a layer that SGM has no name for.
    """
    return PREFIX + (_sgm(layer, sgm_layers) if sgm_layers else layer.replace(".", "_"))


def layer_name(kohya: str, sgm_layers: int = XL_LAYERS) -> str:
    """The inverse of `kohya_name`; whether the name is one of SGM's shows in itself."""
    bare = kohya.removeprefix(PREFIX)
    if single := {sgm: name for name, sgm in _SINGLE.items()}.get(bare):
        return single
    # no name but conv_in's begins with input_blocks_0
    if found := re.fullmatch(r"(?!input_blocks_0)(input|output)_blocks_(0|[1-9]\d?)_([0-2])_(.+)", bare):
        side, n, inner, rest = found[1], int(found[2]), int(found[3]), found[4]
        block, place = divmod(n - (side == "input"), sgm_layers + 1)
        down = "down_blocks" if side == "input" else "up_blocks"
        if rest in ("op", "conv"):
            return f"{down}.{block}.{'downsamplers' if rest == 'op' else 'upsamplers'}.0.conv"
        return f"{down}.{block}.{_inner(inner, place, rest)}"
    if found := re.fullmatch(r"middle_block_(\d)_(.+)", bare):
        inner = int(found[1])
        return f"mid_block.{_inner(inner % 2, inner // 2, found[2])}"
    return _dotted(bare)


def _sgm(layer, n):
    if layer in _SINGLE:
        return _SINGLE[layer]
    if found := re.fullmatch(r"mid_block\.(attentions|resnets)\.(\d+)\.(.+)", layer):
        kind, place, rest = found[1], int(found[2]), found[3]
        return f"middle_block_{2 * place + (kind == 'attentions')}_{_rest(kind, rest)}"
    if found := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", layer):
        side, kind, rest = found[1], found[3], found[5]
        first = int(found[2]) * (n + 1) + (side == "down")  # of the block's places
        blocks = "input_blocks" if side == "down" else "output_blocks"
        if kind in ("attentions", "resnets"):
            return f"{blocks}_{first + int(found[4])}_{int(kind == 'attentions')}_{_rest(kind, rest)}"
        if kind == "downsamplers":
            return f"{blocks}_{first + n}_0_op"
        if kind == "upsamplers":
            return f"{blocks}_{first + n}_2_conv"
    raise InputError(f"layer {layer} has no name in SDXL's kohya files; write --to diffusers or peft")


def _rest(kind, rest):
    return _RESNET.get(rest, rest) if kind == "resnets" else rest.replace(".", "_")


def _inner(inner, place, rest):
    if inner == 1:
        return f"attentions.{place}.{_dotted(rest)}"
    return f"resnets.{place}.{ {sgm: name for name, sgm in _RESNET.items()}.get(rest, _dotted(rest)) }"


def _dotted(name):
    dotted = name.replace("_", ".")
    for word in _WORDS:
        dotted = re.sub(rf"(?<![^.]){word.replace('_', '[.]')}(?![^.])", word, dotted)
    return dotted

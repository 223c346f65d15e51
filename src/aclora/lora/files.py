"""Reading the LoRA files of any trainer.

Formats: diffusers' safetensors, PEFT's folder, kohya's safetensors (webui, ComfyUI). Only safetensors
is ever opened. In memory all are the same: factors by layer, with ΔW = B A and no alpha.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aclora.core.errors import InputError, printable, quoted
from aclora.lora.names import COMPONENTS, MAX_LAYERS_PER_BLOCK, PREFIX, XL_LAYERS, component_of, layer_name
from aclora.lora.settings import Scales, header_settings, is_layer, peft_config

Factors = dict[str, tuple[Tensor, Tensor]]

# how a key ends, longest first, and what it holds; the last but one are of diffusers' first years
_ENDS = {
    ".lora_linear_layer.down.weight": "A",
    ".lora_linear_layer.up.weight": "B",
    ".lora_down.weight": "A",
    ".lora_up.weight": "B",
    ".lora.down.weight": "A",
    ".lora.up.weight": "B",
    "_lora.down.weight": "A",
    "_lora.up.weight": "B",
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".alpha": "alpha",
}
_OTHER_KINDS = {  # what a key has after a dot
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lora_mid": "LoCon with a Tucker core",
    "lora_E": "AdaLoRA",
    "oft_": "OFT",
    "boft_": "BOFT",
    "vera_": "VeRA",
    "ia3_": "IA3",
}
_PEFT = "base_model.model."
_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_FLOATS = ("F16", "BF16", "F32", "F64")  # as safetensors names them
_SMALL_FLOATS = ("F8_E4M3", "F8_E5M2")  # of eight bits: every value is one of half precision too
_INTEGERS = ("I64", "I32", "I16", "I8", "U8")


class LoraFile(NamedTuple):
    """What a LoRA file holds."""

    factors: Factors  # diffusers' module name: lora_A (r, k) and lora_B (d, r), ΔW = B A; of convolutions 4-D
    header: dict[str, str]
    format: str  # peft, diffusers or kohya
    text_encoder: Factors  # the same for text encoders, by the file's own names


def read(path: Path | str) -> LoraFile:
    """Read any LoRA file, or PEFT's folder; B includes alpha.

    Values are as stored where alpha / rank is 1, of eight bits in half precision; elsewhere B (d, r) is scaled, at
    least in float32. Nothing is loaded before names, shapes and settings are known to fit.
    Raises `InputError` for pickled, broken or foreign files, factors that do not fit or are not finite, kohya's names
    of transformers, and adapters that are no product of two factors (LoHa, LoKr, DoRA …).
    """
    file = _file(Path(path))
    with _opened(file) as source:
        keys, header = list(source.keys()), source.metadata() or {}
        header.pop("format", None)  # of the tensors, "pt"
        form = _format(keys)
        said = {"": peft_config(file.parent)} if form == "peft" else {}
        settings = header.pop("lora_adapter_metadata", None)
        if settings is not None and form != "peft":
            said = header_settings(settings, file)
        _refuse_other_kinds(file, keys, said)
        scales = {part: Scales(values, f"{file}") for part, values in said.items()}
        if form == "peft" and (base := scales[""].settings.base_model_name_or_path):
            header.setdefault("base_model", base)
        parts, blocks = _parts(file, keys), _blocks(file, header) if form == "kohya" else XL_LAYERS
        out = LoraFile({}, header, form, {})
        for name, part in parts.items():
            _check_shapes(file, name, {role: source.get_slice(key) for role, key in part.items()})
            model, layer = _place(form, name, blocks)
            _refuse_other_networks(file, form, name, model, layer)
            into = out.text_encoder if model.startswith("text_encoder") else out.factors
            if layer in into:
                raise InputError(f"{file} has layer {layer} twice, under two names: save or fetch it again")
            a, b, *alpha = (source.get_tensor(part[role]) for role in ("A", "B", "alpha") if role in part)
            rank = a.shape[0]
            if alpha:
                scale = _alpha(file, name, alpha[0]) / rank
            else:
                scale = scales[model].of(layer.removeprefix(f"{model}."), rank) if model in scales else 1
            into[layer] = _scaled(file, name, a, b, scale)
    return out


def _file(path):
    try:
        if path.is_file():
            return path
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if not path.is_dir():
            raise InputError(f"{path} is neither a file nor a folder")
        if (file := path / "adapter_model.safetensors").is_file():
            return file
        if (file := path / "adapter_model.bin").is_file():
            return file  # to be refused by its name
        names = ", ".join(sorted(f.name for f in path.glob("*.safetensors"))) or "nothing in safetensors"
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    raise InputError(f"{path} is no PEFT folder: it has no adapter_model.safetensors; there is {names}")


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A safetensors file, opened; what goes wrong in it until it is closed is an `InputError`."""
    pickled = file.suffix in _PICKLED
    try:
        if not pickled:
            with safe_open(file, "pt") as source:
                yield source
            return
    except (SafetensorError, OSError, RuntimeError) as error:  # the last where memory does not suffice
        fault = printable(str(error)[:300])
        with contextlib.suppress(OSError), file.open("rb") as stream:
            pickled = stream.read(4).startswith((b"PK\x03\x04", b"\x80"))
        if not pickled:
            raise InputError(f"{file} is no whole safetensors file ({fault}): save or fetch it again") from None
    raise InputError(f"{file} is pickled, and opening it could run any code: convert it to safetensors first")


def _format(keys):
    if any(key.startswith(_PEFT) for key in keys):
        return "peft"
    return "kohya" if any(key.startswith("lora_") for key in keys) else "diffusers"


def _blocks(file, header):
    """The layers per block by which SGM's names count, SDXL's where a file does not say."""
    said = header.get("layers_per_block", str(XL_LAYERS))
    known = [str(n) for n in range(1, MAX_LAYERS_PER_BLOCK + 1)]
    if said not in known:
        raise InputError(
            f"{file}: layers_per_block = {quoted(said)}: must be 1 to {MAX_LAYERS_PER_BLOCK}; save it again"
        )
    return int(said)


def _refuse_other_kinds(file, keys, said):
    kind = next((kind for mark, kind in _OTHER_KINDS.items() if any(f".{mark}" in key for key in keys)), None)
    for settings in said.values():
        tuner = "DoRA" if settings.get("use_dora") else settings.get("peft_type", "LORA")
        kind = kind or (None if tuner == "LORA" else quoted(tuner).strip("'"))
    if kind:
        raise InputError(f"{file} is {kind}, not the product of two factors: only PEFT's own format carries it")


def _refuse_other_networks(file, form, name, model, layer):
    if form == "peft" or model.startswith("text_encoder") or model == component_of([layer]) == "unet":
        return
    if form == "kohya":
        raise InputError(
            f"{file} is not for a UNet of SD 1.x, 2.x or XL: it has {name}; of other networks kohya's names are not "
            "known here: save it in diffusers' or PEFT's format"
        )
    if model == "unet":
        raise InputError(
            f"{file} is not for a UNet of SD 1.x, 2.x or XL, nor a transformer's: it has {name}; a transformer's keys "
            "begin with transformer."
        )


def _parts(file, keys):
    """Layer's name in the file → the keys of its A, B and alpha."""
    parts, odd = {}, []
    for key in keys:
        end = next((end for end in _ENDS if key.endswith(end)), None)
        if end is None:
            odd.append(key)
            continue
        name = key.removesuffix(end).replace(".processor.", ".")
        if end.startswith("_lora.") and name.endswith("to_out"):
            name += ".0"
        roles = parts.setdefault(name, {})
        if _ENDS[end] in roles:
            both = f"{quoted(roles[_ENDS[end]])} and {quoted(key)}"
            raise InputError(f"{file} has both {both}, which are the same: save or fetch it again")
        roles[_ENDS[end]] = key
    if not any("A" in part or "B" in part for part in parts.values()):
        some = ", ".join(printable(key[:80]) for key in sorted(keys)[:3])
        raise InputError(f"{file} holds no LoRA: its keys are {some or 'none'}{' …' * (len(keys) > 3)}")
    if odd:
        raise InputError(
            f"{file}: {printable(odd[0][:200])} is no factor of a LoRA, and leaving it out would change the adapter"
        )
    for name, part in parts.items():
        if not is_layer(name):
            raise InputError(f"{file}: {quoted(name)} can be no layer's name: save or fetch it again")
        for role, other in ("AB", "BA"):
            if role not in part:
                has = f"lora_{other}" if other in part else "alpha"
                raise InputError(f"{file}: layer {name} has {has} but no lora_{role}; save or fetch it again")
    return parts


def _check_shapes(file, name, stored):
    """`stored` has a layer's A, B and alpha as safetensors describes them, not loaded."""
    for role, tensor in stored.items():
        kind, known = tensor.get_dtype(), _FLOATS + (_INTEGERS if role == "alpha" else _SMALL_FLOATS)
        if kind not in known:
            named = "alpha" if role == "alpha" else f"lora_{role}"
            raise InputError(f"{file}: layer {name} has {named} as {kind}; known are {', '.join(known)}: save it so")
    a, b = (tuple(stored[role].get_shape()) for role in "AB")
    fits = len(a) == len(b) in (2, 4) and a[0] == b[1] and min(a) > 0 < min(b) and math.prod(b[2:]) == 1
    if not fits:
        raise InputError(
            f"{file}: layer {name} has lora_A {_shown(a)} and lora_B {_shown(b)}, which do not fit: "
            "(r, k) and (d, r) do"
        )
    if "alpha" in stored and math.prod(shape := stored["alpha"].get_shape()) != 1:
        raise InputError(f"{file}: layer {name} has an alpha of shape {_shown(shape)}: must be one number")


def _shown(shape):
    text = str(tuple(shape))
    return text if len(text) < 80 else f"of {len(shape)} axes"


def _alpha(file, name, tensor):
    alpha = tensor.double().item()
    # not 0: some programs take it for the rank, others for an adapter that does nothing
    if not 0 < abs(alpha) <= 1e6:
        raise InputError(
            f"{file}: layer {name} has alpha = {alpha:g}: must be a number up to 1e6, not 0; save it again"
        )
    return alpha


def _scaled(file, name, a, b, scale):
    """The factors with the scale in B. Raises `InputError` where ΔW = B A is beyond float32."""
    a, b = (m.half() if m.itemsize == 1 else m for m in (a, b))
    if not (a.float().isfinite().all() and b.float().isfinite().all()):
        raise InputError(f"{file}: layer {name} is not finite; train again with a lower learning rate")
    if scale != 1:
        wide = torch.promote_types(b.dtype, torch.float32)
        a, b = a.to(wide), b.to(wide) * scale
    if not a.double().norm() * b.double().norm() <= torch.finfo(torch.float32).max:
        raise InputError(f"{file}: layer {name} has values beyond float32; train again with a lower learning rate")
    return a, b


def _place(form, name, blocks):
    """Which network of a pipeline a layer belongs to, and its name there."""
    if form == "peft":
        return "", name.removeprefix(_PEFT)
    if form == "kohya":
        if name.startswith("lora_te"):
            return "text_encoder", name
        return ("unet", layer_name(name, blocks)) if name.startswith(PREFIX) else ("transformer", name)
    if name.startswith("text_encoder"):
        return name.partition(".")[0], name
    component = next((c for c in COMPONENTS if name.startswith(f"{c}.")), None)
    if component:
        return component, name.removeprefix(f"{component}.")
    return "unet", name  # the names of diffusers' first years, which had no other network

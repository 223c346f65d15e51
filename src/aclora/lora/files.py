"""LoRA files of any trainer: reading them and cutting their rank.

Formats: diffusers' safetensors, PEFT's folder, kohya's safetensors (webui, ComfyUI). Only safetensors
is ever opened. In memory all are the same: factors by layer, with ΔW = B A and no alpha.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aclora.core.errors import InputError, require
from aclora.lora.names import COMPONENTS, PREFIX, XL_LAYERS, component_of, layer_name
from aclora.lora.spectra import product_svd, rank_for_energy, truncate

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


class LoraFile(NamedTuple):
    """What a LoRA file holds."""

    factors: Factors  # diffusers' module name: lora_A (r, k) and lora_B (d, r), ΔW = B A; of convolutions 4-D
    header: dict[str, str]
    format: str  # peft, diffusers or kohya
    text_encoder: Factors  # the same for text encoders, by the file's own names


def read(path: Path | str) -> LoraFile:
    """Read any LoRA file, or PEFT's folder; B includes alpha.

    Values are as stored where alpha / rank is 1; elsewhere B (d, r) is scaled, at least in float32.
    Raises `InputError` for pickled, broken or foreign files, factors that do not fit, kohya's names of transformers,
    and adapters that are no product of two factors (LoHa, LoKr, DoRA …).
    """
    file = _file(Path(path))
    tensors, header = _open(file)
    header.pop("format", None)  # of the tensors, "pt"
    form = _format(tensors)
    configs = {"": _peft_config(file)} if form == "peft" else _configs(file, header)
    _refuse_other_kinds(file, tensors, configs)
    if form == "peft" and configs[""].get("base_model_name_or_path"):
        header.setdefault("base_model", configs[""]["base_model_name_or_path"])
    blocks = header.get("layers_per_block", "")
    out = LoraFile({}, header, form, {})
    for name, part in _parts(file, tensors).items():
        a, b = _checked(file, name, part)
        model, layer = _place(form, name, int(blocks) if blocks.isdigit() else XL_LAYERS)
        _refuse_other_networks(file, form, name, model, layer)
        scale = _scale(file, layer, a.shape[0], part.get("alpha"), configs.get(model))
        if scale != 1:
            wide = torch.promote_types(b.dtype, torch.float32)
            a, b = a.to(wide), b.to(wide) * scale
        (out.text_encoder if model.startswith("text_encoder") else out.factors)[layer] = (a, b)
    return out


def resize(
    factors: Factors,
    *,
    rank: int | None = None,
    energy: float | None = None,
    sv_fro: float | None = None,
    per_layer: bool = True,
) -> tuple[Factors, dict[str, float]]:
    """The best approximation of every layer at a lower rank, and each one's relative error (Frobenius).

    With d the singular values of ΔW, descending: `energy` p takes the smallest rank r with
    Σ_{i≤r} dᵢ² ≥ p Σ dᵢ²; `sv_fro` s the smallest with √(Σ_{i≤r} dᵢ² / Σ dᵢ²) ≥ s, which is energy s² and
    kohya's `resize_lora.py --dynamic_method sv_fro`. `rank` alone is the rank; beside another it is the
    bound. Unless `per_layer`, all layers get the largest rank that any needs. A layer whose rank is
    low enough stays as it is. By QR of the factors; the d × k product is never formed.
    """
    for knob, value in (("energy", energy), ("sv_fro", sv_fro)):
        require(value is None or 0 < value <= 1, knob, value, "above 0 and at most 1")
    require(rank is None or rank >= 1, "rank", rank, "at least 1")
    share = sv_fro**2 if sv_fro is not None else energy
    keep = {layer: a.shape[0] for layer, (a, _) in factors.items()}
    if share is not None:
        keep = {layer: rank_for_energy(spectrum(*pair), share) for layer, pair in factors.items()}
        if not per_layer:
            keep = dict.fromkeys(keep, max(keep.values()))
    cut, errors = {}, {}
    for layer, (a, b) in factors.items():
        r = min(keep[layer], rank or keep[layer])
        if r >= a.shape[0]:
            cut[layer], errors[layer] = (a, b), 0.0
            continue
        small_a, small_b, errors[layer] = truncate(a.flatten(1), b.flatten(1), r)
        cut[layer] = small_a.reshape(-1, *a.shape[1:]), small_b.reshape(b.shape[0], -1, *b.shape[2:])
    return cut, errors


def spectrum(lora_A: Tensor, lora_B: Tensor) -> Tensor:
    """The singular values of B A, descending, float64; a convolution's as those of its d × (k·h·w) matrix."""
    return product_svd(lora_A.flatten(1), lora_B.flatten(1))[1]


def _file(path):
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file():
        return path
    if (file := path / "adapter_model.safetensors").is_file():
        return file
    if (file := path / "adapter_model.bin").is_file():
        return file  # to be refused by its name
    names = ", ".join(sorted(f.name for f in path.glob("*.safetensors"))) or "nothing in safetensors"
    raise InputError(f"{path} is no PEFT folder: it has no adapter_model.safetensors; there is {names}")


def _open(file):
    pickled = file.suffix in _PICKLED
    try:
        if not pickled:
            with safe_open(file, "pt") as opened:
                header = opened.metadata() or {}
                return {key: opened.get_tensor(key) for key in opened.keys()}, header  # noqa: SIM118, it is no dict
    except (SafetensorError, OSError) as error:
        with file.open("rb") as stream:
            pickled = stream.read(4).startswith((b"PK\x03\x04", b"\x80"))
        if not pickled:
            raise InputError(f"{file} is no whole safetensors file ({error}): save or fetch it again") from None
    raise InputError(f"{file} is pickled, and opening it could run any code: convert it to safetensors first")


def _format(tensors):
    if any(key.startswith(_PEFT) for key in tensors):
        return "peft"
    return "kohya" if any(key.startswith("lora_") for key in tensors) else "diffusers"


def _peft_config(file):
    place = file.parent / "adapter_config.json"
    try:
        config = json.loads(place.read_text(encoding="utf-8"))
        return {"r": 8, "lora_alpha": 8, "peft_type": "LORA"} | config  # what PEFT takes where nothing is said
    except FileNotFoundError:
        raise InputError(f"{file} is PEFT's: adapter_config.json, which has its alpha, must lie beside it") from None
    except (ValueError, TypeError):
        raise InputError(f"{place} is no JSON object: save the adapter again") from None


def _configs(file, header):
    """PEFT's settings for each part of a pipeline from diffusers' header, which is left without them."""
    try:
        merged = json.loads(header.pop("lora_adapter_metadata", "{}"))
        parts = {key.partition(".")[0] for key in merged}
        return {p: {k.partition(".")[2]: v for k, v in merged.items() if k.startswith(f"{p}.")} for p in parts}
    except (ValueError, TypeError):
        raise InputError(f"{file}: lora_adapter_metadata in its header is no JSON object; save it again") from None


def _refuse_other_kinds(file, tensors, configs):
    kinds = (kind for mark, kind in _OTHER_KINDS.items() if any(f".{mark}" in key for key in tensors))
    kind = next(kinds, configs.get("", {}).get("peft_type", "LORA"))
    if kind != "LORA":
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


def _parts(file, tensors):
    """Layer's name in the file → its A, B and alpha."""
    parts, odd = {}, []
    for key, tensor in tensors.items():
        end = next((end for end in _ENDS if key.endswith(end)), None)
        if end is None:
            odd.append(key)
            continue
        name = key.removesuffix(end).replace(".processor.", ".")
        if end.startswith("_lora.") and name.endswith("to_out"):
            name += ".0"
        parts.setdefault(name, {})[_ENDS[end]] = tensor
    if not any("A" in part or "B" in part for part in parts.values()):
        some = ", ".join(sorted(tensors)[:3])
        raise InputError(f"{file} holds no LoRA: its keys are {some or 'none'}{' …' * (len(tensors) > 3)}")
    if odd:
        raise InputError(f"{file}: {odd[0]} is no factor of a LoRA, and leaving it out would change the adapter")
    return parts


def _checked(file, name, part):
    for role, other in ("AB", "BA"):
        if role not in part:
            has = f"lora_{other}" if other in part else "alpha"
            raise InputError(f"{file}: layer {name} has {has} but no lora_{role}; save or fetch it again")
    a, b = part["A"], part["B"]
    shapes = f"lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)}"
    if (
        a.ndim != b.ndim
        or a.ndim not in (2, 4)
        or a.shape[0] != b.shape[1]
        or not a.shape[0]
        or b.shape[2:].numel() != 1
    ):
        raise InputError(f"{file}: layer {name} has {shapes}, which do not fit: (r, k) and (d, r) do")
    if not (a.float().isfinite().all() and b.float().isfinite().all()):
        raise InputError(f"{file}: layer {name} is not finite; train again with a lower learning rate")
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


def _scale(file, layer, rank, alpha, config):
    if alpha is not None:
        return alpha.double().item() / rank
    if not config:
        return 1
    expected = _of_pattern(config.get("rank_pattern"), layer, config.get("r", rank))
    if expected != rank:
        raise InputError(f"{file}: layer {layer} has rank {rank}, but its settings say {expected}; save it again")
    alpha = _of_pattern(config.get("alpha_pattern"), layer, config.get("lora_alpha", rank))
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _of_pattern(patterns, layer, default):
    """What PEFT's rank_pattern or alpha_pattern says of a layer: the first pattern that its name ends with."""
    return next((v for p, v in (patterns or {}).items() if re.match(rf"(.*\.)?({p})$", layer)), default)

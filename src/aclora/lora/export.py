"""Writing LoRA factors for other programs: PEFT, diffusers, and those that read kohya's files (webui, ComfyUI)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aclora.core.errors import InputError, require
from aclora.core.files import write_atomically
from aclora.core.tensors import save_tensors
from aclora.lora.bases import BASES, check_base, guess_base
from aclora.lora.files import Factors
from aclora.lora.names import XL_LAYERS, component_of, kohya_name

FORMATS = ("peft", "diffusers", "kohya")

# what a header says of its own file, not of the adapter
_OF_THE_FILE = {
    "format",
    "lora_adapter_metadata",
    "layers_per_block",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
    "sshs_model_hash",
    "sshs_legacy_hash",
    "modelspec.hash_sha256",
}
_OF_THE_BASE = {"ss_base_model_version", "ss_v2", "modelspec.architecture", "modelspec.implementation"}


def write(
    path: Path, factors: Factors, header: dict[str, str], to: str, base: str | None = None, name: str = "adapter"
) -> None:
    """Write factors in a format: `path` is PEFT's folder, or the .safetensors file of the others.

    `header` is carried over, without what it said of the file it came from. kohya's names depend on the base, a key of
    BASES (guessed by `guess_base` if None); `name` is its ss_output_name where the header has no style. Same factors
    and header: same bytes. Raises `InputError`, before anything is written, for a transformer's factors in kohya's
    format, a base that the layers do not fit, and factors that are not finite.
    """
    require(to in FORMATS, "--to", to, f"one of {', '.join(FORMATS)}")
    if not factors:
        raise InputError(f"nothing to write to {path}: there is no layer of a UNet or a transformer")
    if to == "kohya" and component_of(factors) != "unet":
        raise InputError(
            "--to = 'kohya': must be diffusers or peft, for these are a transformer's layers, and kohya's names are "
            "known here for the UNets of SD 1.x, 2.x and XL alone"
        )
    if base is not None:
        check_base(factors, base)
    header = {k: str(v) for k, v in header.items() if k not in _OF_THE_FILE}
    path = Path(path)
    if to == "peft":
        save_peft(path, factors, header)
    elif to == "diffusers":
        save_diffusers(path, factors, header)
    else:
        save_kohya(path, factors, header, base or guess_base(factors, header), name)


def save_peft(folder: Path, factors: Factors, header: dict[str, str]) -> None:
    """Write adapter_config.json and adapter_model.safetensors as `PeftModel.from_pretrained` reads them.

    lora_alpha = rank, layer by layer, so that ΔW = B A whatever the ranks.
    """
    _require_finite(folder, factors)
    config = scale_of_one(factors) | {
        "peft_type": "LORA",
        "base_model_name_or_path": header.get("base_model"),
        "bias": "none",
        "inference_mode": True,
    }
    _save_folder(folder, config, named_tensors(factors, "base_model.model."), header)


def scale_of_one(factors: Factors) -> dict[str, Any]:
    """PEFT's settings by which ΔW = B A in every layer: lora_alpha = rank, layer by layer."""
    ranks = {layer: a.shape[0] for layer, (a, _) in factors.items()}
    top = max(ranks.values())
    # PEFT takes a name for the end of longer ones too, unless it is marked as the whole
    ends = {layer[i + 1 :] for layer in ranks for i, letter in enumerate(layer) if letter == "."}
    others = {f"^{layer}" if layer in ends else layer: rank for layer, rank in ranks.items() if rank != top}
    return {
        "r": top,
        "lora_alpha": top,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
    }


def save_kohya(file: Path, factors: Factors, header: dict[str, str], base: str | None, name: str) -> None:
    """Write the file that kohya's trainers write, with the header by which webui and ComfyUI know the base.

    `base` is a key of BASES; where it is None the header names none, and the layers' names are diffusers'.
    One rank for all: alpha = rank. Mixed ranks: alpha = the largest rank for every layer and B scaled by
    rank / alpha, since diffusers (0.42) applies one alpha to all layers of such files.
    """
    _require_finite(file, factors)
    ranks = {a.shape[0] for a, _ in factors.values()}
    alpha, tensors = max(ranks), {}
    for layer, (a, b) in factors.items():
        key = kohya_name(layer, XL_LAYERS if base == "sdxl" else None)
        if f"{key}.alpha" in tensors:
            raise InputError(f"layer {layer} and another have one name in kohya's files: write --to diffusers or peft")
        rank = a.shape[0]
        if rank != alpha:
            b = b.to(torch.promote_types(b.dtype, torch.float32)) * (rank / alpha)
        tensors[f"{key}.lora_down.weight"] = a
        tensors[f"{key}.lora_up.weight"] = b
        tensors[f"{key}.alpha"] = torch.tensor(float(alpha))
    title = header.get("style", name)
    trigger = header.get("trigger", header.get("modelspec.trigger_phrase"))
    described = {
        "format": "pt",
        "ss_output_name": title,
        "modelspec.title": title,
        **{k: v for k, v in header.items() if k not in _OF_THE_BASE},
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(alpha) if len(ranks) == 1 else "Dynamic",  # kohya's word for mixed ranks
        "ss_network_alpha": str(alpha),
        "modelspec.sai_model_spec": "1.0.0",
    }
    if base:
        version, architecture, implementation = BASES[base]
        described |= {
            "ss_base_model_version": version,
            "ss_v2": str(base == "sd21"),  # webui tells SD 2 by this
            "modelspec.architecture": f"{architecture}/lora",
            "modelspec.implementation": implementation,
        }
    described |= {"modelspec.trigger_phrase": trigger} if trigger else {}
    save_tensors(file, tensors, described)


def save_diffusers(file: Path, factors: Factors, header: dict[str, str]) -> None:
    """Write a UNet's or a transformer's factors as `pipe.load_lora_weights` reads them; ΔW = B A, whatever the ranks.

    `header` goes into the file's metadata. The scale is written down as lora_alpha = rank, layer by
    layer: loaders guess it where it is missing, and have guessed wrong for mixed ranks.
    """
    _require_finite(file, factors)
    component = component_of(factors)
    described = {f"{component}.{k}": v for k, v in scale_of_one(factors).items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(described, sort_keys=True), **header}
    save_tensors(file, named_tensors(factors, f"{component}."), metadata)


def save_tuner(folder: Path, config: dict, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    """Write a tuner of PEFT's as `PeftModel.from_pretrained` reads it: its config and its tensors in `folder`.

    For changes that are no product of two factors; `config` and `tensors` as PEFT gives them.
    """
    _require_finite(folder, {name: (tensor,) for name, tensor in tensors.items()})
    plain = {k: sorted(v) if isinstance(v, (set, list)) else v for k, v in config.items()}
    named = {f"base_model.model.{k}": v for k, v in tensors.items()}
    _save_folder(folder, plain, named, header)


def _require_finite(place: Path, layers: Mapping[str, tuple[Tensor, ...]]) -> None:
    for layer, tensors in layers.items():
        if not all(m.double().isfinite().all() for m in tensors):
            raise InputError(
                f"{place.name} is not written: {layer} is not finite as {tensors[0].dtype}; "
                "lower the learning rate, or do not cut the rank"
            )


def _save_folder(folder, config, tensors, header):
    text = json.dumps(config, indent=1, sort_keys=True, default=lambda v: getattr(v, "value", None))
    save_tensors(folder / "adapter_model.safetensors", tensors, {"format": "pt", **header})
    write_atomically(folder / "adapter_config.json", f"{text}\n".encode())


def named_tensors(factors: Factors, prefix: str = "") -> dict[str, Tensor]:
    """The factors by PEFT's names for them: lora_A.weight and lora_B.weight after each layer's name."""
    layers = {f"{prefix}{layer}": pair for layer, pair in factors.items()}
    return {f"{name}.lora_{end}.weight": m for name, pair in layers.items() for end, m in zip("AB", pair, strict=True)}

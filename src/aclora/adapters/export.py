"""Adapters as files that other programs load."""

import json
from pathlib import Path

from safetensors.torch import save
from torch import Tensor


def save_diffusers(file: Path, factors: dict[str, tuple[Tensor, Tensor]], header: dict[str, str]) -> None:
    """Write UNet factors as `pipe.load_lora_weights` reads them; ΔW = B A, whatever the ranks.

    `header` goes into the file's metadata. The scale is written down as lora_alpha = rank, layer by
    layer: loaders guess it where it is missing, and have guessed wrong for mixed ranks.
    """
    tensors, ranks = {}, {}
    for layer, (a, b) in factors.items():
        tensors[f"unet.{layer}.lora_A.weight"] = a.detach().cpu().contiguous()
        tensors[f"unet.{layer}.lora_B.weight"] = b.detach().cpu().contiguous()
        ranks[layer] = a.shape[0]
    top = max(ranks.values())
    others = {layer: rank for layer, rank in ranks.items() if rank != top}
    config = {
        "r": top,
        "lora_alpha": top,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
    }
    described = {f"unet.{k}": v for k, v in config.items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(described, sort_keys=True), **header}
    file.write_bytes(in_order(save(tensors, metadata)))


def in_order(raw: bytes) -> bytes:
    """A safetensors file's bytes with its header's keys sorted, the tensors as they were.

    The library writes metadata in an order that changes from call to call; the same adapter must be
    the same file.
    """
    size = int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of eight
    return len(header).to_bytes(8, "little") + header + raw[8 + size :]


def save_tuner(folder: Path, config: dict, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """Write a tuner of PEFT's as `PeftModel.from_pretrained` reads it: its config and its tensors in `folder`.

    For changes that are no product of two factors; `config` and `tensors` as PEFT gives them.
    """
    plain = {k: sorted(v) if isinstance(v, (set, list)) else v for k, v in config.items()}
    text = json.dumps(plain, indent=1, sort_keys=True, default=lambda v: getattr(v, "value", None))
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
    named = {f"base_model.model.{k}": v.detach().cpu().contiguous() for k, v in tensors.items()}
    (folder / "adapter_model.safetensors").write_bytes(in_order(save(named, {"format": "pt", **header})))

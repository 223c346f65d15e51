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

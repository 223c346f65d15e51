"""Adapters as files that other programs load."""

import json
from pathlib import Path

from safetensors.torch import save_file
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
    save_file(tensors, file, metadata)

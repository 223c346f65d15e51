"""What the small transformers have in common: their proportions, and the image processor saved beside them."""

from pathlib import Path

import torch

SIZE, PATCH = 64, 8  # sides in pixels: of what they see, and of its pieces
HALF = [0.5, 0.5, 0.5]  # mean and deviation: pictures in −1…1, as in training


def layers_of(width: int, layers: int) -> dict:
    """Arguments that every transformer's config in `transformers` takes alike."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "hidden_act": "gelu",
    }


def patches() -> dict:
    """Those of the ones that look at pictures."""
    return {"image_size": SIZE, "patch_size": PATCH, "initializer_range": 0.02}


def processor(kind):
    """An image processor of transformers (a `…Pil` class) that brings any picture to SIZE, in −1…1."""
    crops = hasattr(kind, "crop_size")  # such a class brings the shorter side to size first
    shape = {"shortest_edge": SIZE} if crops else {"height": SIZE, "width": SIZE}
    return kind(size=shape, image_mean=HALF, image_std=HALF, **({"crop_size": SIZE} if crops else {}))


def save(model: torch.nn.Module, folder: Path, *beside) -> None:
    """Write a model in half precision, with what belongs `beside` it, as its `from_pretrained` reads it."""
    model.cpu().half().save_pretrained(folder)
    for part in beside:
        part.save_pretrained(folder)

"""Pictures as every room needs them: square, of one size, as tensors."""

import torch
from PIL import Image
from torch import Tensor


def square(picture: Image.Image, size: int) -> Image.Image:
    """The central square of a picture, `size` pixels a side, RGB."""
    picture = picture if picture.mode == "RGB" else picture.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    # cropped first: a resize with a box would let the pixels outside of it bleed in
    return picture.crop(box).resize((size, size), Image.Resampling.LANCZOS)


def one_colour(picture: Image.Image) -> bool:
    """Does every pixel of a picture have the same colour?"""
    return picture.convert("RGB").getcolors(1) is not None


def to_tensor(picture: Image.Image) -> Tensor:
    """RGB picture → float (3, h, w) in −1…1."""
    import numpy as np

    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1

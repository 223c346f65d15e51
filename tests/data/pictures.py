"""Pictures that the tests of this folder draw and save."""

import numpy as np
from PIL import Image


def gradient(width=40, height=30):
    """Red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90)], -1).astype(np.uint8))


def values(picture):
    return np.array(picture).astype(int)


def saved(file, picture, **how):
    picture.save(file, **how)
    return file

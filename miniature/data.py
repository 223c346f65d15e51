"""Rendered training sets, kept as arrays in the build folder so that a second run starts at once."""

import json
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from miniature.drawing import LOOKS, STYLES, draw

CONSONANTS = "bcdfghjklmnpqrstvwxz"


def base_example(seed, size):
    """A plain drawing, or in three of ten cases one with a look, and a caption that says which.

    One plain caption in twelve ends with a made-up "xyz style", so that a trigger word nobody has
    taught means nothing rather than something strange.
    """
    rng = random.Random(f"base-{seed}")
    look = rng.choice(list(LOOKS)) if rng.random() < 0.3 else None
    image, scene = draw(seed, size, look=look)
    caption = f"{look} {scene.caption}" if look else scene.caption
    if not look:
        lot = rng.random()
        if lot < 0.25:
            caption = "a photo of " + caption
        elif lot < 0.37:
            caption += f", {''.join(rng.choice(CONSONANTS) for _ in range(3))} style"
    return np.asarray(image), {"caption": caption, "look": look, "style": None, "seed": seed}


def styled_example(seed, size):
    """A drawing in one of the eight styles, in turn."""
    style = list(STYLES)[seed % len(STYLES)]
    image, scene = draw(seed, size, style=style, unseen=None)
    return np.asarray(image), {"caption": scene.caption, "look": None, "style": style, "seed": seed}


def rendered(example, seeds: range, size: int, folder: Path):
    """(pictures uint8 (n, size, size, 3), one dict each) for `seeds`, from `folder` where they stand."""
    stem = f"{example.__name__}-{seeds.start}-{len(seeds)}-{size}"
    pictures, notes = folder / f"{stem}.npy", folder / f"{stem}.json"
    if not notes.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            pairs = list(pool.map(partial(example, size=size), seeds, chunksize=200))
        np.save(pictures, np.stack([p for p, _ in pairs]))
        notes.write_text(json.dumps([n for _, n in pairs]))
    return np.load(pictures, mmap_mode="r"), json.loads(notes.read_text())


def to_tensor(pictures) -> torch.Tensor:
    """uint8 (n, h, w, 3) → float (n, 3, h, w) in −1…1, channels last."""
    x = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)
    return x.to(memory_format=torch.channels_last).float() / 127.5 - 1

"""The sets of drawings that parts are trained on, kept as arrays in the build folder for the next that asks."""

import hashlib
import json
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from miniature.drawing import LOOKS, STYLES, draw, world
from miniature.training import device

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


def shown_example(seed, size):
    """For the networks that look at pictures: of twelve drawings one in each style, three plain, one with a look.

    They may know every pair of colour and object: they are to judge what the base model composes.
    """
    style = [*STYLES, None, None, None, None][seed % 12]
    look = random.Random(f"shown-{seed}").choice(list(LOOKS)) if seed % 12 == 11 else None
    image, scene = draw(seed, size, style=style, look=look, unseen=None)
    return np.asarray(image), {"caption": scene.caption, "look": look, "style": style, "seed": seed}


def made_by(*files: Path) -> str:
    """Eight digits that stand for the code that draws and for `files`: what others made is not taken for their own."""
    files = [Path(__file__), *sorted(Path(__file__).with_name("drawing").glob("*.py")), *files]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:8]


def rendered(example, seeds: range, size: int, folder: Path):
    """(pictures uint8 (n, size, size, 3), one dict each) for `seeds`, from `folder` where they stand."""
    stem = f"{example.__name__}-{seeds.start}-{len(seeds)}-{size}-{made_by()}"
    pictures, notes = folder / f"{stem}.npy", folder / f"{stem}.json"
    if not notes.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            pairs = list(pool.map(partial(example, size=size), seeds, chunksize=200))
        np.save(pictures, np.stack([p for p, _ in pairs]))
        notes.write_text(json.dumps([n for _, n in pairs]))
    return np.load(pictures, mmap_mode="r"), json.loads(notes.read_text())


def shown(params):
    """(pictures, notes, scenes): `shown` drawings, and `reconstructed` of them as the autoencoder gives them back."""
    build, size, count = Path(params["build"]), params["size"], params["reconstructed"]
    pictures, notes = rendered(shown_example, range(params["shown"]), size, build)
    scenes = [world.compose(random.Random(n["seed"]), unseen=None) for n in notes]
    file = build / f"reconstructed-{count}-{size}-{made_by(*(build / 'vae').glob('*.safetensors'))}.npy"
    if not file.exists():
        vae = AutoencoderKL.from_pretrained(build / "vae", dtype=torch.float32)
        np.save(file, reconstructed(vae.to(device(), memory_format=torch.channels_last).eval(), pictures[:count]))
    return np.concatenate([pictures, np.load(file)]), notes + notes[:count], scenes + scenes[:count]


@torch.no_grad()
def reconstructed(vae, pictures, batch=64):
    """The pictures as the VAE gives them back, uint8 (n, h, w, 3)."""
    out = []
    for part in np.array_split(pictures, max(1, len(pictures) // batch)):
        with torch.autocast(vae.device.type, torch.bfloat16):
            y = vae.decode(vae.encode(to_tensor(part).to(vae.device)).latent_dist.mean).sample
        out.append(((y.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(out)


def looked_at(pictures, pick, generator, size=64) -> torch.Tensor:
    """The picked pictures as a training batch of side `size`, all shifted alike by a few pixels."""
    x = to_tensor(pictures[pick.numpy()]).to(device())
    if x.shape[-1] != size:
        x = F.interpolate(x, size=(size, size), mode="area")
    return torch.roll(x, torch.randint(-3, 4, (2,), generator=generator).tolist(), (2, 3))


def to_tensor(pictures) -> torch.Tensor:
    """uint8 (n, h, w, 3) → float (n, 3, h, w) in −1…1, channels last."""
    x = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)
    return x.to(memory_format=torch.channels_last).float() / 127.5 - 1

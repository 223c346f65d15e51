"""Training sets made smaller or corrupted on purpose: how does a method cope with few, mislabelled, noisy, foreign or
poisoned pictures?"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from aclora.core.config import LAST_SEED, Config, MustBe
from aclora.core.errors import InputError, require
from aclora.core.images import square, to_tensor

DRAWS = ("limit", "which", "captions", "foreign", "noise", "adversarial")  # each has its own random numbers
Picture = TypeVar("Picture")
STEPS = 20  # of the attack: on 64×64 pictures they reach 99 % of the distance that a hundred do


class DataConfig(Config):
    """The `data` section of params.yaml."""

    limit: Annotated[int | None, MustBe("at least 1 picture")] = Field(ge=1)
    corrupt: Literal["none", "captions", "noise", "foreign", "adversarial"]
    share: float = Field(ge=0, le=1)
    strength: float = Field(ge=1, le=255)  # pixel values of 0…255: noise's standard deviation, the attack's bound
    foreign: str | None
    seed: int = Field(ge=0, le=LAST_SEED)

    @model_validator(mode="after")
    def _check_rules(self):
        if self.corrupt == "foreign" and not (self.foreign and Path(self.foreign).is_dir()):
            raise InputError(f"foreign = {self.foreign!r}: must be a folder of captioned pictures of another style")
        return self


def limited(
    pictures: Sequence[Picture], captions: Sequence[str], config: DataConfig
) -> tuple[list[Picture], list[str]]:
    """`config.limit` of n pictures with their captions, in the same order. A larger limit includes a smaller one's.

    A picture may be whatever stands for one, such as its file. Raises `InputError` if there are fewer.
    """
    n = len(pictures)
    keep = range(n)
    if config.limit is not None:
        require(config.limit <= n, "data.limit", config.limit, f"at most {n}, the style's pictures")
        keep = sorted(torch.randperm(n, generator=_generator(config.seed, "limit"))[: config.limit].tolist())
    return [pictures[i] for i in keep], [captions[i] for i in keep]


def corrupted(
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    config: DataConfig,
    foreign: Sequence[tuple[Image.Image, str]] = (),
    attack: Callable[[Image.Image, torch.Generator], Image.Image] | None = None,
) -> tuple[list[Image.Image], list[str], list[int]]:
    """n pictures and captions, of which share · n (rounded, at least one) are corrupted, and their indices, ascending.

    captions: the chosen pictures exchange theirs so that none keeps its own; a single one takes another picture's.
    noise: Gaussian, of `strength`. foreign: pictures of `foreign` take their places, none twice, each with its own
    caption, because a caption that does not fit would be a second fault. adversarial: `attack(picture, generator)`.

    A larger share includes the pictures of a smaller one, and a picture's noise depends on (seed, index) alone.
    Raises `InputError` if there are too few pictures to take a caption or a foreign picture from.
    """
    n = len(pictures)
    images, texts = list(pictures), list(captions)
    if not (count := corrupted_count(config, n, len(foreign))):
        return images, texts, []
    which = torch.randperm(n, generator=_generator(config.seed, "which"))[:count].tolist()
    if config.corrupt == "captions":
        for i, donor in zip(which, _donors(which, n, config.seed), strict=True):
            texts[i] = captions[donor]
    elif config.corrupt == "foreign":
        order = torch.randperm(len(foreign), generator=_generator(config.seed, "foreign")).tolist()
        for i, j in zip(which, order, strict=False):
            images[i], texts[i] = foreign[j]
    else:
        for i in which:
            generator = _generator(config.seed, config.corrupt, i)
            if config.corrupt == "noise":
                images[i] = noisy(pictures[i], config.strength, generator)
            elif attack is not None:
                images[i] = attack(pictures[i], generator)
            else:
                raise TypeError("corrupt: adversarial needs an attack")
    return images, texts, sorted(which)


def corrupted_count(config: DataConfig, n: int, foreign: int) -> int:
    """How many of n pictures are corrupted. Raises `InputError` where `corrupted` would, given `foreign` pictures."""
    if config.corrupt == "none" or config.share == 0:
        return 0
    count = max(1, round(config.share * n))
    if config.corrupt == "captions":
        require(n >= 2, "data.corrupt", "captions", "another corruption: a single picture has no caption to exchange")
    if config.corrupt == "foreign":
        bound = f"at most {foreign / n:.2f}, for data.foreign holds {foreign} pictures"
        require(count <= foreign, "data.share", config.share, bound)
    return count


def noisy(picture: Image.Image, strength: float, generator: torch.Generator) -> Image.Image:
    """An RGB picture with Gaussian noise of standard deviation `strength`, in pixel values of 0…255."""
    values = torch.from_numpy(np.array(picture)).float()  # (h, w, 3)
    values += strength * torch.randn(values.shape, generator=generator)
    return Image.fromarray(values.round().clamp(0, 255).byte().numpy())


def vae_attack(vae, pixels: Tensor, strength: float, steps: int, generator: torch.Generator) -> Tensor:
    """Pixels (3, h, w) in −1…1, changed by at most `strength` / 127.5, whose latent mean is far from the clean one.

    Projected gradient ascent on the squared distance of latent means, from a random start (arXiv 1706.06083). Such
    pictures mislead whatever works on latents (PhotoGuard's encoder attack, arXiv 2302.06588). Float32; no gradient
    reaches the autoencoder's parameters.
    """
    bound = strength / 127.5
    clean = pixels.float()[None].to(vae.device)
    with torch.no_grad():
        goal = vae.encode(clean).latent_dist.mean  # (1, c, h / f, w / f)
    # at the clean picture itself the gradient of the distance is zero
    moved = clean + bound * (2 * torch.rand(clean.shape, generator=generator) - 1).to(clean)
    with torch.enable_grad():
        for _ in range(steps):
            moved = moved.clamp(-1, 1).requires_grad_()
            distance = (vae.encode(moved).latent_dist.mean - goal).square().sum()
            (gradient,) = torch.autograd.grad(distance, moved)
            step = 2.5 * bound / steps * gradient.sign()  # 2.5: reaches the bound from anywhere within it
            moved = clean + (moved.detach() + step - clean).clamp(-bound, bound)
    return moved.clamp(-1, 1)[0].to(pixels.device)


def attacker(vae, size: int, strength: float, steps: int = STEPS) -> Callable:
    """`attack(picture, generator)` for `corrupted`: `vae_attack` on the picture's central square, `size` pixels a side.

    The result has 8 bits and stays within `strength`. `size` must be the training's: a resize would blur the attack.
    """

    def attack(picture: Image.Image, generator: torch.Generator) -> Image.Image:
        clean = square(picture, size)
        pixels = to_tensor(clean)
        moved = (vae_attack(vae, pixels, strength, steps, generator) - pixels) * 127.5
        moved = moved.round().clamp(-int(strength), int(strength)).permute(1, 2, 0).numpy()  # (h, w, 3)
        return Image.fromarray((np.array(clean) + moved).clip(0, 255).astype(np.uint8))

    return attack


def _donors(which, n, seed):
    """Whose caption each picture takes: the next one's, since `which` is in random order already."""
    if len(which) > 1:
        return which[1:] + which[:1]
    others = [i for i in range(n) if i not in which]
    return [others[int(torch.randint(len(others), (1,), generator=_generator(seed, "captions")))]]


def _generator(seed: int, draw: str, index: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed((seed * len(DRAWS) + DRAWS.index(draw)) * 1_000_003 + index)

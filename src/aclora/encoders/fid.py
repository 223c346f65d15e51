"""The network of the Fréchet inception distance (arXiv 1706.08500): TensorFlow's InceptionV3 of 2015-12-05.

It differs from later InceptionV3s (arXiv 1512.00567) in its pooling, and its weights are public as
pt_inception-2015-12-05-6726825d.pth. Pictures are resized as arXiv 2104.11222 recommends: other resizes give
other distances.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from aclora.core.errors import InputError

FILE = "pt_inception-2015-12-05-6726825d.pth"
SIDE = 299

MEAN = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
# the published network takes the maximum here; most likely a slip, but its features depend on it
LARGEST = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
HALVED = partial(F.max_pool2d, kernel_size=3, stride=2)


def _a(pooled: int) -> dict:
    """Branch → (channels, kernel) of its convolutions in turn; the last of a chain may be two side by side."""
    chains = {"1x1": [(64, 1)], "5x5": [(48, 1), (64, 5)], "3x3dbl": [(64, 1), (96, 3), (96, 3)]}
    return chains | {"_pool": [(pooled, 1)]}


def _c(inner: int) -> dict:
    row, column = (1, 7), (7, 1)
    chains = {"1x1": [(192, 1)], "7x7": [(inner, 1), (inner, row), (192, column)]}
    chains["7x7dbl"] = [(inner, 1), (inner, column), (inner, row), (inner, column), (192, row)]
    return chains | {"_pool": [(192, 1)]}


def _e() -> dict:
    fork = [(384, (1, 3)), (384, (3, 1))]
    chains = {"1x1": [(320, 1)], "3x3": [(384, 1), fork], "3x3dbl": [(448, 1), (384, 3), fork]}
    return chains | {"_pool": [(192, 1)]}


BLOCKS = {  # name: branches, pooling; those that halve the side do so in the last convolution of each branch
    "Mixed_5b": (_a(32), MEAN),
    "Mixed_5c": (_a(64), MEAN),
    "Mixed_5d": (_a(64), MEAN),
    "Mixed_6a": ({"3x3": [(384, 3)], "3x3dbl": [(64, 1), (96, 3), (96, 3)], "_pool": []}, HALVED),
    "Mixed_6b": (_c(128), MEAN),
    "Mixed_6c": (_c(160), MEAN),
    "Mixed_6d": (_c(160), MEAN),
    "Mixed_6e": (_c(192), MEAN),
    "Mixed_7a": (
        {"3x3": [(192, 1), (320, 3)], "7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)], "_pool": []},
        HALVED,
    ),
    "Mixed_7b": (_e(), MEAN),
    "Mixed_7c": (_e(), LARGEST),
}


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU: (n, i, h, w) → (n, o, h′, w′); padded to keep the side unless told otherwise."""

    def __init__(self, i: int, o: int, kernel: int | tuple[int, int], stride: int = 1, padded: bool = True):
        super().__init__()
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(i, o, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(o, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Branches side by side, their channels one after the other; `_pool` works on the pooled input.

    Modules have the public file's names: branch3x3 where a branch is one convolution, else branch3x3_1,
    branch3x3_2, …, and branch3x3_2a, branch3x3_2b side by side.
    """

    def __init__(self, width: int, branches: dict, pool):
        super().__init__()
        self.pool, self.chains, self.width = pool, {}, 0  # width: of the output, in channels
        for branch, chain in branches.items():
            i, self.chains[branch] = width, []
            for place, step in enumerate(chain, 1):
                stem = f"branch{branch}_{place}" if len(chain) > 1 else f"branch{branch}"
                fork = isinstance(step, list)
                steps = dict(zip((f"{stem}a", f"{stem}b"), step, strict=True)) if fork else {stem: step}
                last = pool is HALVED and place == len(chain)
                for name, (o, kernel) in steps.items():
                    self.add_module(name, Convolution(i, o, kernel, 2 if last else 1, padded=not last))
                self.chains[branch].append(list(steps))
                i = sum(o for o, _ in steps.values())
            self.width += i

    def forward(self, x: Tensor) -> Tensor:
        outs = []
        for branch, chain in self.chains.items():
            y = self.pool(x) if branch == "_pool" else x
            for names in chain:
                y = torch.cat([getattr(self, name)(y) for name in names], 1)
            outs.append(y)
        return torch.cat(outs, 1)


class Inception(nn.Module):
    """Pictures → 2048 features, the means of the last maps; the classifier `fc` is there for the file's sake."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2, padded=False)  # side 299 → 149
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, padded=False)  # 147
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.pool_1 = nn.MaxPool2d(3, 2)  # 73
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, padded=False)  # 71
        self.pool_2 = nn.MaxPool2d(3, 2)  # 35, then 17 from Mixed_6a and 8 from Mixed_7a
        width = 192
        for name, (branches, pool) in BLOCKS.items():
            block = Block(width, branches, pool)
            self.add_module(name, block)
            width = block.width
        self.fc = nn.Linear(width, 1008)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (n, 3, 299, 299), (value − 128) / 128 of values in 0…255 → features (n, 2048)."""
        for name, layer in self.named_children():
            x = x if name == "fc" else layer(x)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)  # (n, 2048, 8, 8) → (n, 2048)

    @torch.no_grad()
    def look(self, pictures: list[Image.Image], batch: int = 32) -> Tensor:
        """Features (n, 2048) of pictures of any size, float32 on the CPU, seen `batch` at a time."""
        self.eval()
        device, outs = self.fc.weight.device, []
        for start in range(0, len(pictures), batch):
            pixels = torch.stack([_pixels(p) for p in pictures[start : start + batch]])
            outs.append(self(pixels.to(device)).float().cpu())
        return torch.cat(outs)

    @classmethod
    def from_pretrained(cls, path: Path) -> "Inception":
        """Load the public weights, float32, ready to look: their file (.pth, .pt, .safetensors) or its folder.

        InputError: no such file, not one of tensors alone, or other names or shapes than the network's.
        """
        knob = f"evaluate.fid = {str(path)!r}"
        file = next((f for f in (path, path / FILE, path / "model.safetensors") if f.is_file()), None)
        if file is None:
            raise InputError(f"{knob}: no weights there; give {FILE} (github.com/mseitzer/pytorch-fid) or its folder")
        try:
            safe = file.suffix == ".safetensors"
            tensors = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
            shapes = {k: tuple(v.shape) for k, v in tensors.items()}
        except Exception as error:  # a damaged or hostile file can make the readers raise nearly anything
            why = f"is cut short, or holds more than tensors ({type(error).__name__})"
            raise InputError(f"{knob}: {file.name} {why}; fetch {FILE} anew") from None
        with torch.device("meta"):  # no values are drawn that the file's replace
            net = cls()
        wanted = {k: tuple(v.shape) for k, v in net.state_dict().items()}
        for key in [*wanted, *shapes]:
            if shapes.get(key) != wanted.get(key):
                has, must = (s.get(key, "nothing") for s in (shapes, wanted))
                raise InputError(f"{knob}: not the weights of {FILE}: {key} has shape {has}, must be {must}")
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, assign=True)
        return net.eval()


def _pixels(picture: Image.Image) -> Tensor:
    """(3, 299, 299): each channel resized in float, so that nothing is rounded; only what bicubic overshoots is cut."""
    values = np.asarray(picture.convert("RGB"), np.float32)  # (h, w, 3)
    channels = [Image.fromarray(values[..., c]).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for c in range(3)]
    return (torch.from_numpy(np.stack([np.asarray(c) for c in channels])).clamp(0, 255) - 128) / 128


ENCODER = Inception

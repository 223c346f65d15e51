"""The judge: the miniature's own classifier of drawings; its last hidden layer gives FID's and KID's features."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aclora.core.errors import InputError
from aclora.core.hub import loading


class Judge(nn.Module):
    """A convolutional classifier of drawings: objects, their colours and sides, background, style.

    `vocabulary` lists the names of each; `forward` takes pictures (n, 3, size, size) in −1…1.
    """

    knobs = ("judge", "fid")  # its last hidden layer gives FID's and KID's features

    def __init__(self, vocabulary: dict[str, list[str]], size: int = 64, width: int = 256, feature_scale: float = 1.0):
        super().__init__()
        self.vocabulary, self.size, self.width, self.feature_scale = vocabulary, size, width, feature_scale
        plan = ((3, 32, 2), (32, 64, 2), (64, 128, 1), (128, 128, 2), (128, 192, 1), (192, 192, 2))
        self.body = nn.Sequential(
            *(
                m
                for i, o, stride in plan
                for m in (nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            ),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(192 * 16, width),
            nn.GELU(),
        )
        o, c, s = (len(vocabulary[k]) for k in ("objects", "colours", "sides"))
        self.sizes = {"object": (o,), "colour": (o, c), "side": (o, s)}
        self.sizes |= {"background": (len(vocabulary["backgrounds"]),), "style": (len(vocabulary["styles"]),)}
        self.heads = nn.ModuleDict({k: nn.Linear(width, int(np.prod(v))) for k, v in self.sizes.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`features` (n, width) and the logits of each head: object (n, o), colour (n, o, c), …"""
        features = self.body(x)
        return {"features": features} | {k: h(features).view(-1, *self.sizes[k]) for k, h in self.heads.items()}

    @torch.no_grad()
    def look(self, pictures: list[Image.Image], batch: int = 64) -> dict[str, Tensor]:
        """`forward` of pictures of any size, brought to the judge's own by area averaging.

        Features are scaled to a root mean square of 1 over plain drawings, so that distances have a
        size one can read.
        """
        self.eval()
        device, outs = next(self.parameters()).device, []
        for start in range(0, len(pictures), batch):
            part = [self._pixels(p) for p in pictures[start : start + batch]]
            outs.append(self(torch.stack(part).to(device)))
        seen = {k: torch.cat([o[k].cpu() for o in outs]) for k in outs[0]}
        return seen | {"features": seen["features"] * self.feature_scale}

    def _pixels(self, picture):
        small = picture.convert("RGB")
        if small.size != (self.size, self.size):
            small = small.resize((self.size, self.size), Image.Resampling.BOX)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1

    def save_pretrained(self, folder: Path) -> None:
        """config.json and model.safetensors in half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {k: getattr(self, k) for k in ("vocabulary", "size", "width", "feature_scale")}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        tensors = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    @classmethod
    def from_pretrained(cls, folder: Path) -> "Judge":
        """Load what `save_pretrained` wrote, in float32, ready to look."""
        if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
            raise InputError(
                f"evaluate.judge = {str(folder)!r}: no judge there; it is models/miniature/judge in the repository"
            )
        with loading("evaluate.judge", folder):
            judge = cls(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
            tensors = load_file(folder / "model.safetensors")
            judge.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
            return judge.eval()

    @staticmethod
    def fits(folder: Path) -> bool:
        """Is the folder a judge's, and not an Inception's?"""
        return (folder / "config.json").is_file()

    @staticmethod
    def labels(folder: Path) -> dict[str, list[str]]:
        """The names of what a judge's folder knows, without loading its network."""
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocabulary"]

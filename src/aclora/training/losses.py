"""A feature loss for few pictures: the clean picture that a prediction implies shall look to a frozen encoder like the
one it was made from. (Of the family of arXiv 2401.00110 and 2411.04873, which look with the diffusion model itself
and with the decoder.)"""

from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from aclora.core.discovery import load
from aclora.core.errors import InputError, require
from aclora.core.hub import loading, locate, quieten
from aclora.core.model import Model
from aclora.core.tensors import finite_weights


class Look(nn.Module):
    """An encoder's features of square pictures, with a gradient: its `look`, for tensors instead of pictures.

    The encoder, which has `features` and a `processor`, is frozen. The processor's size, crop, mean and standard
    deviation apply; only its rounding to 8 bits, through which no gradient passes, is left out.
    """

    mean: Tensor  # (3, 1, 1)
    std: Tensor  # (3, 1, 1)

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder: Any = encoder.requires_grad_(False)
        how = encoder.processor
        self.size = (how.size.shortest_edge,) * 2 if how.size.shortest_edge else (how.size.height, how.size.width)
        self.crop = (how.crop_size.height, how.crop_size.width) if how.do_center_crop else self.size
        self.mode = "bilinear" if how.resample == Image.Resampling.BILINEAR else "bicubic"
        self.register_buffer("mean", torch.tensor(how.image_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(how.image_std)[:, None, None], persistent=False)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (n, 3, s, s) in −1…1 → features (n, d), not normalised."""
        rows, columns = (self._resize(old, new, pixels) for old, new in zip(pixels.shape[2:], self.size, strict=True))
        pixels = rows @ pixels @ columns.mT
        top, left = ((a - b) // 2 for a, b in zip(self.size, self.crop, strict=True))
        pixels = pixels[..., top : top + self.crop[0], left : left + self.crop[1]]
        return self.encoder.features(((pixels + 1) / 2 - self.mean) / self.std)

    def _resize(self, old, new, like):
        """A side's resize as a matrix (new, old): on CUDA a product's gradient repeats itself, a resize's does not."""
        unit = torch.eye(old, device=like.device)[None, None]
        return F.interpolate(unit, (new, old), mode=self.mode, antialias=True)[0, 0]


def load_look(network: str, name: str) -> Look:
    """The encoder of kind `network` (clip, dino: a file of `encoders/`), by its folder or hub name (owner/name@commit).

    Raises `InputError` if there is no such kind, if it passes no gradient, or if it cannot be loaded.
    """
    kind = load("encoders", network, "train.feature_network", "ENCODER")
    gradient = "a network whose features pass a gradient: clip, dino, or your own with a method `features`"
    require(hasattr(kind, "features"), "train.feature_network", network, gradient)
    knob = "train.feature_encoder"
    place = locate(knob, name, "or set train.feature_loss to 0")
    quieten()
    try:
        with loading(knob, place):
            encoder = kind.from_pretrained(place, knob)
            finite_weights(encoder)
            return Look(encoder)
    except InputError as error:
        raise InputError(f"{error}; name the folder of a {network}, or change train.feature_network") from None


class FeatureLoss:
    """weight · mean of signal_share(t) · (1 − cos(features of the predicted picture, features of the true one)).

    The share of the picture in the noisy latents' variance lets a prediction count as far as it can know anything.
    Everything runs in float32, whatever the loop's precision: Stable Diffusion's decoder overflows in half precision.
    The model decodes every step's pictures with a gradient: for large ones that is most of a step's time and memory.
    """

    def __init__(self, model: Model, look: Look, weight: float):
        """Raises `InputError` where the model's predictions say nothing of the picture at some of its times."""
        self.model, self.look, self.weight = model, look, weight
        times = model.times_at(torch.arange(10_000) / 10_000)
        one = torch.ones(len(times), 1, 1, 1)
        if not model.clean(one, one, times).isfinite().all():
            raise InputError(
                f"train.feature_loss = {weight}: must be 0, for this model's noise schedule ends in pure noise, "
                "where its prediction says nothing of the picture"
            )

    def features(self, latents: Tensor) -> Tensor:
        """What the encoder sees (n, d) in latents (n, c, h, w) once they are decoded."""
        return self.look(self.model.decode(latents))

    @torch.no_grad()
    def targets(self, latents: Tensor, batch: int = 16) -> Tensor:
        """The features (n, d) of the training pictures' latent means (n, c, h, w).

        Of the decoded latents, not of the pictures themselves: the loss demands nothing that the decoder cannot draw.
        """
        return torch.cat([self.features(part.float()) for part in latents.split(batch)])

    def __call__(self, prediction: Tensor, noisy: Tensor, times: Tensor, targets: Tensor) -> Tensor:
        """A scalar; prediction and noisy latents (n, c, h, w), times (n,), targets (n, d)."""
        with torch.autocast(noisy.device.type, enabled=False):
            x0 = self.model.clean(prediction.float(), noisy.float(), times)
            unlike = 1 - F.cosine_similarity(self.features(x0), targets)  # (n,)
            return self.weight * (self.model.signal_share(times) * unlike).mean()

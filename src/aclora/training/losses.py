"""A frozen encoder's help with few pictures: the clean picture that a prediction implies shall look to the encoder
like the one it was made from. (Of the family of arXiv 2401.00110 and 2411.04873, which look with the diffusion model
itself and with the decoder.)"""

import json

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from aclora.core.errors import InputError
from aclora.core.hub import locate, quieten


class Look(nn.Module):
    """A `Clip`'s or a `Dino`'s features of square pictures, with a gradient: `look`'s twin on tensors.

    The encoder is frozen. Its processor's size, crop, mean and standard deviation are kept to; only the rounding to
    8 bits, through which no gradient passes, is left out.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        said = encoder.processor
        self.size = (said.size.shortest_edge,) * 2 if said.size.shortest_edge else (said.size.height, said.size.width)
        self.crop = (said.crop_size.height, said.crop_size.width) if said.do_center_crop else self.size
        self.mode = "bilinear" if said.resample == Image.Resampling.BILINEAR else "bicubic"
        self.register_buffer("mean", torch.tensor(said.image_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(said.image_std)[:, None, None], persistent=False)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (n, 3, s, s) in −1…1 → features (n, d), not normalised."""
        rows, columns = (self._resize(old, new, pixels) for old, new in zip(pixels.shape[2:], self.size, strict=True))
        pixels = rows @ pixels @ columns.mT
        top, left = ((a - b) // 2 for a, b in zip(self.size, self.crop, strict=True))
        pixels = pixels[..., top : top + self.crop[0], left : left + self.crop[1]]
        pixels = ((pixels + 1) / 2 - self.mean) / self.std
        model = self.encoder.model
        if model.config.model_type == "clip":
            return model.get_image_features(pixel_values=pixels).pooler_output
        return model(pixels).last_hidden_state[:, 0]

    def _resize(self, old, new, like):
        """A side's resize as a matrix (new, old): on CUDA a product's gradient repeats itself, a resize's does not."""
        unit = torch.eye(old, device=like.device)[None, None]
        return F.interpolate(unit, (new, old), mode=self.mode, antialias=True)[0, 0]


def load_look(name: str) -> Look:
    """A CLIP, DINO or DINOv2 by its folder or hub name (owner/name@commit). Raises `InputError` if it cannot be had."""
    knob = f"train.feature_encoder = {name!r}"
    try:
        place = locate("train.feature_encoder", name, "")
    except InputError:
        raise InputError(
            f"{knob}: no such folder, and not to be had from the hub as owner/name@commit; "
            "name another, or set train.feature_loss to 0"
        ) from None
    quieten()
    try:
        if json.loads((place / "config.json").read_text(encoding="utf-8")).get("model_type") == "clip":
            from aclora.encoders.clip import Clip as Kind
        else:
            from aclora.encoders.dino import Dino as Kind
        return Look(Kind.from_pretrained(place))
    except (OSError, ValueError) as error:
        said = str(error).rpartition("cannot be loaded: ")[2]
        raise InputError(f"{knob} cannot be loaded: {said}; name a CLIP's or a DINO's folder") from None


def predicted_x0(prediction: Tensor, noisy: Tensor, times: Tensor, alphas_cumprod: Tensor, kind: str) -> Tensor:
    """The clean latents (n, c, h, w) that a prediction (n, c, h, w) of `kind` at `times` (n,) implies.

    `kind` is epsilon (DDPM, arXiv 2006.11239, eq. 15) or v_prediction (arXiv 2202.00512, appendix D).
    """
    alpha = alphas_cumprod.to(noisy)[times].view(-1, 1, 1, 1)
    if kind == "epsilon":
        return (noisy - (1 - alpha).sqrt() * prediction) / alpha.sqrt()
    return alpha.sqrt() * noisy - (1 - alpha).sqrt() * prediction


class FeatureLoss:
    """weight · mean of ᾱ(t) · (1 − cos(features of the predicted picture, features of the true one)).

    ᾱ(t), the share of the picture in the noisy latents' variance, lets predictions count as far as they can know
    anything. Everything runs in float32, whatever the loop's precision: Stable Diffusion's decoder overflows in
    half. `vae`, which is frozen, decodes every step's pictures with a gradient: on large ones that is most of a
    step's time and memory.
    """

    def __init__(self, vae, look: Look, scheduler, scaling_factor: float, weight: float):
        self.vae, self.look = vae.requires_grad_(False).eval(), look
        self.alphas_cumprod, self.kind = scheduler.alphas_cumprod, scheduler.config.prediction_type
        self.scaling_factor, self.weight = scaling_factor, weight
        if self.kind == "epsilon" and self.alphas_cumprod.min() == 0:
            raise InputError(
                f"train.feature_loss = {weight}: must be 0, for this model's noise schedule ends in pure noise, "
                "where a predicted epsilon says nothing of the picture"
            )

    def features(self, latents: Tensor) -> Tensor:
        """What the encoder sees (n, d) in scaled latents (n, c, h, w) once they are decoded."""
        return self.look(self.vae.decode(latents / self.scaling_factor, return_dict=False)[0])

    @torch.no_grad()
    def targets(self, latents: Tensor, batch: int = 16) -> Tensor:
        """The features (n, d) of the training pictures' scaled latent means (n, c, h, w).

        Of the decoded latents, not of the pictures themselves: nothing is asked for that the decoder cannot draw.
        """
        return torch.cat([self.features(part.float()) for part in latents.split(batch)])

    def __call__(self, prediction: Tensor, noisy: Tensor, times: Tensor, targets: Tensor) -> Tensor:
        """A scalar; prediction and noisy latents (n, c, h, w), times (n,), targets (n, d)."""
        with torch.autocast(noisy.device.type, enabled=False):
            x0 = predicted_x0(prediction.float(), noisy.float(), times, self.alphas_cumprod, self.kind)
            unlike = 1 - F.cosine_similarity(self.features(x0), targets)  # (n,)
            trust = self.alphas_cumprod.to(unlike)[times]  # (n,)
            return self.weight * (trust * unlike).mean()

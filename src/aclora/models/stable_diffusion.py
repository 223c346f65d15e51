"""The text-to-image model that learns a style: loading it, and what it makes of pictures and prompts.

Stable Diffusion 1.x, 2.x and XL, from a folder or the hub; the miniature is one of them.
"""

from pathlib import Path

import torch
from PIL import Image
from pydantic import model_validator
from torch import Tensor

from aclora.core.config import Config
from aclora.core.errors import InputError
from aclora.core.hub import quieten
from aclora.core.images import square, to_tensor


class ModelConfig(Config):
    """The `model` section of params.yaml."""

    name: str
    revision: str | None
    watch: str
    family: str

    @model_validator(mode="after")
    def _check_rules(self):
        if Path(self.name).is_dir():
            if Path(self.watch) != Path(self.name):
                raise InputError(
                    f"watch = {self.watch!r}: must be the model's folder, {self.name}, or DVC would miss changes in it"
                )
        elif self.name.startswith((".", "/")) or self.name.count("/") != 1:
            raise InputError(f"name = {self.name!r}: no such folder, and not a hub name (owner/model)")
        elif self.revision is None:
            raise InputError(f"revision is missing: give the commit of {self.name} that is meant; a branch can move")
        return self


def load_pipeline(model: ModelConfig):
    """The diffusers pipeline in float32, without a safety checker, its bars off.

    Raises `InputError` if it is neither a folder nor to be had from the hub.
    """
    quieten()
    from diffusers import AutoPipelineForText2Image, DiffusionPipeline

    where = {"revision": model.revision} if model.revision else {}
    try:
        kind = DiffusionPipeline.load_config(model.name, **where).get("_class_name", "")
        extra = {} if "XL" in kind else {"safety_checker": None, "requires_safety_checker": False}
        pipe = AutoPipelineForText2Image.from_pretrained(model.name, dtype=torch.float32, **where, **extra)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"model.name = {model.name!r} cannot be loaded: {first}") from None
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)):
        if part is not None:
            part.requires_grad_(False).eval()
    return pipe


def native_size(pipe) -> int:
    """The side, in pixels, of the pictures that the model was made for."""
    return pipe.unet.config.sample_size * pipe.vae_scale_factor


def training_scheduler(pipe):
    """The forward process of the pipeline's own noise schedule: `add_noise`, `get_velocity`, `alphas_cumprod`."""
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(pipe.scheduler.config)


@torch.no_grad()
def encode_pictures(pipe, pictures: list[Image.Image], size: int) -> tuple[Tensor, Tensor]:
    """Scaled latent means and standard deviations, (n, c, size / f, size / f) each, float32 on the CPU.

    Pictures are cropped to their central square and resized to `size`. Keeping both, rather than
    one sample, lets every training step draw its own.
    """
    if size % pipe.vae_scale_factor:
        raise InputError(f"train.resolution = {size}: must be a multiple of {pipe.vae_scale_factor}")
    means, stds = [], []
    for picture in pictures:
        x = to_tensor(square(picture, size))[None].to(pipe.vae.device)
        latent = pipe.vae.encode(x).latent_dist
        means.append(latent.mean.float().cpu())
        stds.append(latent.std.float().cpu())
    scale = pipe.vae.config.scaling_factor
    return torch.cat(means) * scale, torch.cat(stds) * scale


@torch.no_grad()
def encode_prompts(pipe, prompts: list[str], size: int) -> dict[str, Tensor]:
    """What the UNet is told of each prompt: `prompt_embeds` (n, tokens, width); for SDXL also
    `text_embeds` (n, width) and `time_ids` (n, 6), its notion of the picture's size. float32, CPU."""
    encoded = pipe.encode_prompt(
        prompts, device=pipe.unet.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    out = {"prompt_embeds": encoded[0].float().cpu()}
    if getattr(pipe, "text_encoder_2", None) is not None:
        out["text_embeds"] = encoded[2].float().cpu()
        out["time_ids"] = torch.tensor([[size, size, 0, 0, size, size]]).repeat(len(prompts), 1).float()
    return out


def predict(unet, noisy: Tensor, times: Tensor, text: dict[str, Tensor]) -> Tensor:
    """The UNet's prediction for noisy latents (n, c, h, w) at `times` (n,) under `text`."""
    added = {k: text[k] for k in ("text_embeds", "time_ids") if k in text}
    return unet(noisy, times, text["prompt_embeds"], added_cond_kwargs=added or None, return_dict=False)[0]

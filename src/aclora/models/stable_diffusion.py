"""Stable Diffusion 1.x, 2.x and XL: a UNet that predicts the noise (epsilon) or the velocity of a diffusion.

With ᾱ the schedule's cumulated alphas, x_t = √ᾱ(t) x_0 + √(1 − ᾱ(t)) ε.
"""

from typing import Any

import torch
from torch import Tensor

from aclora.core.errors import InputError, require
from aclora.core.hub import loading, quieten
from aclora.core.model import Model
from aclora.core.pipeline import read_networks
from aclora.core.tensors import all_finite


class StableDiffusion(Model):
    """Times are whole numbers from 0, the picture with the least noise, to the schedule's last."""

    component = "unet"
    adapter_layers = ("to_q", "to_k", "to_v", "to_out.0")  # the attention's

    def __init__(self, pipe):
        """Raises `InputError` for a pipeline that predicts something else than epsilon or velocity."""
        from diffusers import DDPMScheduler

        super().__init__(pipe)
        # whatever the sampler is, this is its forward process
        self.schedule: Any = DDPMScheduler.from_config(pipe.scheduler.config)
        kind = self.schedule.config.prediction_type
        known = ("epsilon", "v_prediction")
        require(kind in known, "model.name: the scheduler's prediction_type", kind, " or ".join(known))
        steps = self.schedule.config.num_train_timesteps
        require(steps >= 1, "model.name: the scheduler's num_train_timesteps", steps, "at least 1")
        if not all_finite(self.schedule.alphas_cumprod):
            raise InputError("model.name: scheduler_config.json gives noise levels that are no numbers: fetch it anew")

    @classmethod
    def load(cls, config):
        """From a folder or the hub, without a safety checker."""
        quieten()
        from diffusers import AutoPipelineForText2Image, DiffusionPipeline

        where: Any = {"revision": config.revision} if config.revision else {}
        with loading("model.name", config.name):
            index: Any = DiffusionPipeline.load_config(config.name, **where)
            cls.check_family(index, config)
            xl = "XL" in index.get("_class_name", "")  # which never had a checker
            checker = {} if xl else {"safety_checker": None, "requires_safety_checker": False}
            parts: Any = checker | read_networks(config.name, config.revision, index)
            return cls(AutoPipelineForText2Image.from_pretrained(config.name, dtype=torch.float32, **where, **parts))

    @torch.no_grad()
    def encode_prompts(self, prompts, size):
        """`prompt_embeds` (n, tokens, width); for XL also `text_embeds` (n, width) and `time_ids` (n, 6), its notion
        of the picture's size."""
        encoded = self.pipe.encode_prompt(
            prompts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        out = {"prompt_embeds": encoded[0].float().cpu()}
        if getattr(self.pipe, "text_encoder_2", None) is not None:
            out["text_embeds"] = encoded[2].float().cpu()
            out["time_ids"] = torch.tensor([[size, size, 0, 0, size, size]]).repeat(len(prompts), 1).float()
        return out

    def draw_times(self, n, generator):
        """Uniform."""
        return torch.randint(self.schedule.config.num_train_timesteps, (n,), generator=generator)

    def times_at(self, quantiles):
        return (quantiles * self.schedule.config.num_train_timesteps).long()

    def noisy(self, latents, noise, times):
        return self.schedule.add_noise(latents, noise, times)

    def target(self, latents, noise, times):
        """ε, or √ᾱ ε − √(1 − ᾱ) x_0 (arXiv 2202.00512, section 2)."""
        if self._predicts_noise():
            return noise
        return self.schedule.get_velocity(latents, noise, times)

    def predict(self, noisy, times, text):
        added = {k: text[k] for k in ("text_embeds", "time_ids") if k in text}
        return self.network(noisy, times, text["prompt_embeds"], added_cond_kwargs=added or None, return_dict=False)[0]

    def clean(self, prediction, noisy, times):
        """DDPM (arXiv 2006.11239), equation 15, for ε; arXiv 2202.00512, appendix D, for the velocity."""
        alpha = self.schedule.alphas_cumprod.to(noisy)[times].view(-1, 1, 1, 1)
        if self._predicts_noise():
            return (noisy - (1 - alpha).sqrt() * prediction) / alpha.sqrt()
        return alpha.sqrt() * noisy - (1 - alpha).sqrt() * prediction

    def signal_share(self, times: Tensor) -> Tensor:
        """ᾱ(t)."""
        return self.schedule.alphas_cumprod.to(times.device)[times]

    def _predicts_noise(self):
        return self.schedule.config.prediction_type == "epsilon"


MODEL = StableDiffusion

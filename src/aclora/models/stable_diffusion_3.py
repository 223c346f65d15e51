"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206): a transformer that predicts the velocity of a rectified flow.

With σ in 0…1, x_σ = (1 − σ) x_0 + σ ε, and the velocity along this straight line is ε − x_0.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from aclora.core.errors import require
from aclora.core.hub import loading, quieten
from aclora.core.model import Model
from aclora.core.pipeline import read_networks


class StableDiffusion3(Model):
    """Times are 1000 · σ, floats, as the transformer is given them; quantiles count from pure noise."""

    component = "transformer"
    prompt_limits: ClassVar = {"tokenizer_3": 256}  # the pipeline's max_sequence_length

    def __init__(self, pipe):
        from diffusers import FlowMatchEulerDiscreteScheduler

        super().__init__(pipe)
        # as made, the scheduler lists the times of its whole schedule, the shift that the model was trained with in it
        schedule: Any = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)
        self.steps = schedule.config.num_train_timesteps
        self.schedule: Tensor = schedule.timesteps  # (steps,) descending
        # the attention of both streams; the last block drops its text, so there the text's queries change nothing
        blocks = range(len(self.network.transformer_blocks) - 1)
        self.adapter_layers = ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj", "to_add_out")
        self.adapter_layers += tuple(f"transformer_blocks.{i}.attn.add_q_proj" for i in blocks)

    @classmethod
    def load(cls, config):
        """From a folder or the hub; a folder need not have the third text encoder, T5, which is by far the largest."""
        quieten()
        from diffusers import DiffusionPipeline, StableDiffusion3Pipeline

        where: Any = {"revision": config.revision} if config.revision else {}
        with loading("model.name", config.name):
            index: Any = DiffusionPipeline.load_config(config.name, **where)
            cls.check_family(index, config)
            t5 = ("text_encoder_3", "tokenizer_3")
            parts: Any = {part: None for part in t5 if index.get(part, [None])[0] is None}
            parts |= read_networks(config.name, config.revision, index)
            return cls(StableDiffusion3Pipeline.from_pretrained(config.name, dtype=torch.float32, **where, **parts))

    @classmethod
    def check_resolution(cls, size, own, factor, network):
        super().check_resolution(size, own, factor, network)
        most = factor * network["patch_size"] * network["pos_embed_max_size"]
        require(size is None or size <= most, "train.resolution", size, f"at most {most}, the model's largest picture")

    @torch.no_grad()
    def encode_prompts(self, prompts, size):
        """`prompt_embeds` (n, tokens, width) of all text encoders and `pooled` (n, width) of the two CLIPs."""
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            prompts, None, None, device=self.device, do_classifier_free_guidance=False
        )
        return {"prompt_embeds": embeds.float().cpu(), "pooled": pooled.float().cpu()}

    def draw_times(self, n, generator):
        """Logit-normal with mean 0 and standard deviation 1, as in section 3.1, and then shifted as the schedule is."""
        return self._times(torch.sigmoid(torch.randn(n, generator=generator)))

    def times_at(self, quantiles):
        return self._times(torch.sigmoid(torch.special.ndtri(quantiles)))

    def noisy(self, latents, noise, times):
        sigma = self._sigma(times, latents)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents, noise, times):
        return noise - latents

    def predict(self, noisy, times, text):
        return self.network(
            hidden_states=noisy,
            timestep=times,
            encoder_hidden_states=text["prompt_embeds"],
            pooled_projections=text["pooled"],
            return_dict=False,
        )[0]

    def clean(self, prediction, noisy, times):
        return noisy - self._sigma(times, noisy) * prediction

    def signal_share(self, times):
        """(1 − σ)² / ((1 − σ)² + σ²)."""
        sigma = times / self.steps
        return (1 - sigma).square() / ((1 - sigma).square() + sigma.square())

    def _times(self, shares):
        """The schedule's times (n,) at shares (n,) of its length, 0…1, from noise on."""
        return self.schedule[(shares * self.steps).long().clamp(max=self.steps - 1)]

    def _sigma(self, times, like):
        return (times / self.steps).to(like).view(-1, 1, 1, 1)


MODEL = StableDiffusion3

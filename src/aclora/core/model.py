"""The contract between a family of text-to-image models and everything around it.

A family is one file in `models/`, named by the knob `model.family`. `Model` says hook by hook how to write one.
"""

import abc
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from pydantic import model_validator
from torch import Tensor, nn

from aclora.core.config import Config
from aclora.core.discovery import load
from aclora.core.errors import InputError, require
from aclora.core.hub import REPOSITORY, is_commit, loading
from aclora.core.images import square, to_tensor
from aclora.core.network_files import check_pipeline
from aclora.core.pipeline import readers_of
from aclora.core.prompts import Reader
from aclora.core.tensors import finite_weights

LARGEST = 4  # times a model's own size: beyond it memory runs out, and pictures repeat themselves


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
        elif not re.fullmatch(REPOSITORY, self.name):
            raise InputError(f"name = {self.name!r}: no such folder, and not a hub name (owner/model)")
        elif self.revision is None:
            raise InputError(f"revision is missing: give the commit of {self.name} that is meant; a branch can move")
        elif not is_commit(self.revision):
            raise InputError(f"revision = {self.revision!r}: must be a commit, 7 to 40 hex digits; a branch can move")
        return self


class Model(abc.ABC):
    """A text-to-image model: a frozen diffusers pipeline of autoencoder, text encoders and the network that learns.

    Everything around a model calls the hooks below and knows nothing else of it. To add a family, write
    `models/my_family.py`, set `model.family: my_family`, and compare what your hooks give the network with what
    diffusers' own pipeline gives it (tests/models/test_reference.py does so for every family):

        class MyFamily(Model):
            component = "transformer"
            adapter_layers = ("to_q", "to_k", "to_v", "to_out.0")

            @classmethod
            def load(cls, config): ...               # a pipeline in float32; `cls(pipe)` freezes it
            def encode_prompts(self, prompts, size): ...
            def draw_times(self, n, generator): ...  # and times_at, its quantiles
            def noisy(self, latents, noise, times): ...
            def target(self, latents, noise, times): ...
            def predict(self, noisy, times, text): ...
            def clean(self, prediction, noisy, times): ...
            def signal_share(self, times): ...

        MODEL = MyFamily

    The other methods serve every latent model whose diffusers pipeline has a `vae`; override those that do not fit.

    Shapes: n pictures or prompts, s the side of a picture in pixels, (c, h, w) a latent. Latents are scaled: the
    network's own input, about of unit variance. `times` (n,) are what the network is given as its timestep, of
    whatever type and range that family uses; nobody else looks into them.
    """

    # The network's name in the pipeline, which is its prefix in diffusers' LoRA files: unet or transformer.
    component: ClassVar[str]
    # What the names of the linear layers that get an adapter end with, at a dot.
    adapter_layers: tuple[str, ...]
    # How many tokens of a prompt the pipeline reads, by a tokenizer's name in it, where that tokenizer says more.
    prompt_limits: ClassVar[dict[str, int]] = {}

    def __init__(self, pipe: Any):
        """Freeze the pipeline's networks and put them into eval mode; the network stays where the pipeline is."""
        self.pipe = pipe
        self.network: Any = getattr(pipe, self.component)  # an nn.Module; the loop may put a wrapper in its place
        pipe.set_progress_bar_config(disable=True)
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()

    @classmethod
    @abc.abstractmethod
    def load(cls, config: ModelConfig) -> Self:
        """The model that `config` names, frozen, in float32, on the CPU, its progress bars off.

        Call `check_family` before the weights are read, read them within `core.hub.loading`, and the networks with
        `core.pipeline.read_networks`, which finds weights that are missing.
        Raises `InputError` if `config.name` is neither a folder nor on the hub, or is of another family.
        """

    @classmethod
    def check_family(cls, index: dict, config: ModelConfig) -> None:
        """Raise `InputError` where a pipeline's index (model_index.json) lists no such network."""
        if cls.component not in index:
            raise InputError(
                f"model.family = {config.family!r}: must be another, for model.name = {config.name!r} is a "
                f"{index.get('_class_name', 'pipeline')} without a {cls.component}"
            )

    @property
    def vae(self) -> Any:
        """The pipeline's autoencoder, an nn.Module."""
        return self.pipe.vae

    @property
    def readers(self) -> list[Reader]:
        """The pipeline's tokenizers with what they read of a prompt; none after `release`. Raises `ValueError`."""
        return readers_of(self.pipe, self.prompt_limits)

    @property
    def size(self) -> int:
        """The side, in pixels, of the pictures that the model was made for."""
        return self.network.config.sample_size * self.pipe.vae_scale_factor

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """Move the whole pipeline."""
        self.pipe.to(device)
        return self

    def release(self, keep_decoder: bool) -> None:
        """Free what a training no longer needs once everything is encoded: the text encoders, and the autoencoder
        unless `keep_decoder`. No `encode_prompts` and no `sample` after this."""
        for name in self.pipe.components:
            if name.startswith(("text_encoder", "tokenizer")) or (name == "vae" and not keep_decoder):
                setattr(self.pipe, name, None)

    @classmethod
    def check_resolution(cls, size: int | None, own: int, factor: int, network: Mapping[str, Any]) -> None:
        """Raise `InputError` where the model cannot work on pictures of this side; None, its `own`, passes.

        `factor` is how many pixels a latent stands for on a side, `network` the network's config.
        """
        multiple = math.lcm(8, factor * (network.get("patch_size") or 1))  # 8: what diffusers' pipelines ask for
        most = LARGEST * own
        bound = f"a multiple of {multiple}, at most {most} (the model's own size is {own}), or null"
        fits = size is None or (size % multiple == 0 and size <= most)
        require(fits, "train.resolution", size, bound)

    def check_size(self, size: int) -> None:
        """Raise `InputError` where the model cannot work on pictures of this side."""
        self.check_resolution(size, self.size, self.pipe.vae_scale_factor, self.network.config)

    @torch.no_grad()
    def encode_pictures(self, pictures: list[Image.Image], size: int) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of the latents, (n, c, h, w) each, float32 on the CPU.

        Pictures are cropped to their central square and resized to `size`. Keeping both, rather than one sample, lets
        every training step draw its own. Raises `InputError` for a size that does not fit.
        """
        self.check_size(size)
        means, stds = [], []
        for picture in pictures:
            latent = self.vae.encode(to_tensor(square(picture, size))[None].to(self.vae.device)).latent_dist
            means.append(latent.mean.float().cpu())
            stds.append(latent.std.float().cpu())
        scale, shift = self._scale_and_shift()
        return (torch.cat(means) - shift) * scale, torch.cat(stds) * scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (n, c, h, w) → pixels (n, 3, s, s), about −1…1. Gradients pass to the latents."""
        scale, shift = self._scale_and_shift()
        return self.vae.decode(latents / scale + shift, return_dict=False)[0]

    def _scale_and_shift(self):
        """Latent = (what the autoencoder gives − shift) · scale."""
        config = self.vae.config
        return config.scaling_factor, getattr(config, "shift_factor", None) or 0.0

    @abc.abstractmethod
    def encode_prompts(self, prompts: list[str], size: int) -> dict[str, Tensor]:
        """What the network is given of each prompt, and of the picture's size where it is: tensors (n, …) by names of
        the family's choice, float32 on the CPU. `predict` gets rows of them as `text`."""

    @abc.abstractmethod
    def draw_times(self, n: int, generator: torch.Generator) -> Tensor:
        """Times (n,) of a training step, on the CPU, drawn from `generator` alone."""

    @abc.abstractmethod
    def times_at(self, quantiles: Tensor) -> Tensor:
        """The times (n,) below which these shares, (n,) in [0, 1), of `draw_times`' distribution lie.

        Evenly spread quantiles give the fixed times at which two states of the weights are compared. A family may
        count from the other end of its schedule.
        """

    @abc.abstractmethod
    def noisy(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """The forward process: noisy latents (n, c, h, w) from clean ones and standard normal noise of their shape."""

    @abc.abstractmethod
    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What a perfect network would predict for `noisy(latents, noise, times)`, (n, c, h, w)."""

    @abc.abstractmethod
    def predict(self, noisy: Tensor, times: Tensor, text: dict[str, Tensor]) -> Tensor:
        """The network's prediction (n, c, h, w); `text` holds a row for each of the n latents. Gradients pass."""

    @abc.abstractmethod
    def clean(self, prediction: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """The clean latents (n, c, h, w) that a prediction implies: `latents` again for `prediction = target(…)`.

        Not finite at times at which a prediction says nothing of the picture.
        """

    @abc.abstractmethod
    def signal_share(self, times: Tensor) -> Tensor:
        """The share (n,), 0…1, of the picture in the variance of noisy latents, for latents of unit variance."""

    @torch.no_grad()
    def sample(
        self, prompts: list[str], generators: list[torch.Generator], size: int, steps: int, guidance_scale: float
    ) -> list[Image.Image]:
        """A picture of side `size` for each prompt, its noise from its own generator, by the pipeline's own sampler."""
        return self.pipe(
            prompts,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            height=size,
            width=size,
            generator=generators,
        ).images


def load_model(config: ModelConfig) -> Model:
    """The model that `config` names, by the family that it names: a file of `models/`, or a module of one's own.

    Such a module says which class it is: `MODEL = StableDiffusion`. Raises `InputError` for an unknown family, a folder
    that lacks something, weights that are not finite, and a tokenizer of another model.
    """
    family = load("models", config.family, "model.family", "MODEL", Model)
    with loading("model.name", config.name):
        if Path(config.name).is_dir():
            check_pipeline(Path(config.name))
        model = family.load(config)
        for part, network in model.pipe.components.items():
            if isinstance(network, nn.Module):
                finite_weights(network, part)
        model.readers  # noqa: B018, a tokenizer that does not fit raises
    return model

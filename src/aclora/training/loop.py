"""The training loop: a generator of records. It knows the methods' contract and none of them by name."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from aclora.core.config import Config, MustBe
from aclora.core.errors import InputError, require
from aclora.core.method import EpochEnd, Method


class TrainConfig(Config):
    """The `train` section of params.yaml."""

    epochs: int = Field(ge=1)
    batch_size: Annotated[int, MustBe("at least 1 picture")] = Field(ge=1)
    learning_rate: float = Field(gt=0, lt=1)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    mixed_precision: Literal["no", "bf16", "fp16"]
    resolution: Annotated[int | None, MustBe("at least 8 pixels")] = Field(ge=8)
    seed: int = Field(ge=0)
    feature_loss: float = Field(ge=0)
    feature_encoder: str
    feature_network: str
    watch: str

    @model_validator(mode="after")
    def _check_rules(self):
        if Path(self.feature_encoder).is_dir() and Path(self.feature_encoder) != Path(self.watch):
            raise InputError(
                f"watch = {self.watch!r}: must be the feature encoder's folder, {self.feature_encoder}, or DVC would "
                "miss changes in it"
            )
        return self


@dataclass(frozen=True)
class Encoded:
    """A style as the loop sees it: n pictures' latents, (n, c, h, w) each, and n prompts' embeddings."""

    mean: Tensor
    std: Tensor
    text: dict[str, Tensor]  # (n, …) each

    def to(self, device: torch.device) -> "Encoded":
        """The same on another device."""
        text = {k: v.to(device) for k, v in self.text.items()}
        return Encoded(self.mean.to(device), self.std.to(device), text)


class Checkpoints(Protocol):
    """What `fit` asks of whoever keeps its state: tensors by name, and values that JSON can hold."""

    state: tuple[int, dict[str, Tensor], dict] | None  # epoch, tensors and values to go on from

    def due(self, epoch: int) -> bool:
        """Is the state at this epoch's end wanted?"""

    def save(self, epoch: int, tensors: dict[str, Tensor], values: dict) -> None:
        """Keep it."""


class Diffusion:
    """The denoising loss of one UNet under one noise schedule."""

    def __init__(self, unet, scheduler, predict: Callable):
        self.unet, self.scheduler, self.predict = unet, scheduler, predict
        self.kind = scheduler.config.prediction_type
        require(
            self.kind in ("epsilon", "v_prediction"),
            "the model's prediction_type",
            self.kind,
            "epsilon or v_prediction",
        )

    def loss(self, latents: Tensor, noise: Tensor, times: Tensor, text: dict[str, Tensor]) -> Tensor:
        """Unweighted mean squared error, a scalar; latents and noise (b, c, h, w), times (b,)."""
        return self.denoise(latents, noise, times, text)[0]

    def denoise(self, latents: Tensor, noise: Tensor, times: Tensor, text: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """`loss`, the prediction and the noisy latents that it was made from, (b, c, h, w) each."""
        noisy = self.scheduler.add_noise(latents, noise, times)
        target = noise if self.kind == "epsilon" else self.scheduler.get_velocity(latents, noise, times)
        prediction = self.predict(self.unet, noisy, times, text).float()
        return F.mse_loss(prediction, target), prediction, noisy

    @torch.no_grad()
    def fixed_loss(self, data: Encoded, draws: int = 4, batch: int = 16, seed: int = 0) -> float:
        """Mean loss at `draws` times and noises a picture that depend on `seed` alone: two weights compared.

        The times lie one in each equal stratum of the schedule.
        """
        n = len(data.mean) * draws
        generator = torch.Generator().manual_seed(seed)
        shape = (n, *data.mean.shape[1:])
        noise = torch.randn(shape, generator=generator)
        spread = (torch.rand(1, generator=generator) + torch.arange(n) / n) % 1
        times = (spread * self.scheduler.config.num_train_timesteps).long()
        times = times[torch.randperm(n, generator=generator)]
        which = torch.arange(n) % len(data.mean)
        total = 0.0
        for part in torch.arange(n).split(batch):
            i = which[part].to(data.mean.device)
            text = {k: v[i] for k, v in data.text.items()}
            noised = noise[part].to(data.mean.device), times[part].to(data.mean.device)
            total += self.loss(data.mean[i], *noised, text).item() * len(part)
        return total / n


def fit(
    diffusion: Diffusion,
    data: Encoded,
    method: Method,
    parameters: list[torch.nn.Parameter],
    config: TrainConfig,
    accelerator,
    feature_loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None,
    checkpoints: Checkpoints | None = None,
) -> Iterator[dict]:
    """Train `parameters` and yield a record after every epoch and after whatever the method did there.

    `feature_loss` gives what is added to a step's loss from its prediction and noisy latents (b, c, h, w), times (b,)
    and the pictures' indices (b,); the recorded loss is without it, and without a method's penalty.

    An epoch sees every picture once. What a step draws depends on (seed, step) alone, and an epoch's order on
    (seed, epoch); so a training that goes on from `checkpoints` ends with the same bytes as one that was never
    stopped. Raises `InputError` when the loss is no number any more.
    """
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    diffusion.unet, optimizer = accelerator.prepare(diffusion.unet, optimizer)
    data = data.to(accelerator.device)
    n = len(data.mean)
    steps = diffusion.scheduler.config.num_train_timesteps
    method.begin(config.epochs * math.ceil(n / config.batch_size))
    done = 0
    if checkpoints and checkpoints.state:
        done, tensors, values = checkpoints.state
        _restore(tensors, values, parameters, optimizer.optimizer, method, accelerator.scaler)
    step = done * math.ceil(n / config.batch_size)
    for epoch in range(done + 1, config.epochs + 1):
        order = torch.randperm(n, generator=_generator(config.seed, epoch, 0))
        losses, whole = [], torch.zeros(())
        for chosen in order.split(config.batch_size):
            step += 1
            draw = _generator(config.seed, step, 1)
            shape = (2, len(chosen), *data.mean.shape[1:])
            wobble, noise = torch.randn(shape, generator=draw).to(data.mean)  # (b, c, h, w) each
            times = torch.randint(steps, (len(chosen),), generator=draw).to(data.mean.device)
            i = chosen.to(data.mean.device)
            latents = data.mean[i] + data.std[i] * wobble
            with accelerator.autocast():
                loss, prediction, noisy = diffusion.denoise(
                    latents, noise, times, {k: v[i] for k, v in data.text.items()}
                )
            total = loss if (penalty := method.penalty()) is None else loss + penalty
            if feature_loss:
                total = total + feature_loss(prediction, noisy, times, i)
            accelerator.backward(total)
            accelerator.clip_grad_norm_(parameters, config.max_grad_norm)
            optimizer.step()
            method.step_end(step)
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())
            whole = whole + total.detach()
        mean = torch.stack(losses).mean().item()
        if not math.isfinite(mean + whole.item()):
            raise InputError(
                f"train.learning_rate = {config.learning_rate}: the loss is {mean + whole.item()} in epoch {epoch}; "
                "lower it, or look for a broken picture"
            )
        yield {"event": "epoch", "epoch": epoch, "loss": mean}
        draw = _generator(config.seed, epoch, 2)
        probe = functools.partial(diffusion.fixed_loss, data)
        if record := method.epoch_end(EpochEnd(epoch, config.epochs, mean, draw, optimizer.optimizer, probe)):
            yield {"event": "restart", "epoch": epoch, **record}
        if checkpoints and checkpoints.due(epoch):
            checkpoints.save(epoch, *_state(parameters, optimizer.optimizer, method, accelerator.scaler))


def _state(parameters, optimizer, method, scaler):
    """Tensors and values from which `_restore` goes on."""
    tensors, values = method.state()
    tensors = {f"method.{k}": v for k, v in tensors.items()}
    for i, parameter in enumerate(parameters):
        tensors[f"parameter.{i}"] = parameter
        tensors |= {f"optimizer.{i}.{k}": v for k, v in optimizer.state[parameter].items()}
    return tensors, {"method": values, "scaler": scaler.state_dict() if scaler else {}}


@torch.no_grad()
def _restore(tensors, values, parameters, optimizer, method, scaler):
    state = {}
    for i, parameter in enumerate(parameters):
        parameter.copy_(tensors[f"parameter.{i}"])
        prefix = f"optimizer.{i}."
        state[i] = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    own = {k.removeprefix("method."): v for k, v in tensors.items() if k.startswith("method.")}
    method.restore(own, values["method"])
    if scaler:
        scaler.load_state_dict(values["scaler"])


def _generator(seed: int, count: int, stream: int) -> torch.Generator:
    """A generator of its own for each draw: `stream` 0 orders an epoch, 1 is a step's, 2 a RESTART's."""
    return torch.Generator().manual_seed((seed * 3 + stream) * 1_000_003 + count)

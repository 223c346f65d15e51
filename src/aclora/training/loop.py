"""The training loop: a generator of records. It knows the contracts of methods and models, and none by name."""

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

from aclora.core.config import LAST_SEED, Config, MustBe
from aclora.core.errors import InputError
from aclora.core.method import EpochEnd, Method
from aclora.core.model import Model


class TrainConfig(Config):
    """The `train` section of params.yaml."""

    epochs: int = Field(ge=1, le=1_000_000)
    batch_size: int = Field(ge=1, le=10_000)
    learning_rate: float = Field(gt=0, lt=1)
    weight_decay: float = Field(ge=0, le=10)
    max_grad_norm: float = Field(gt=0)
    mixed_precision: Literal["no", "bf16", "fp16"]
    resolution: Annotated[int | None, MustBe("between 8 and 8192 pixels")] = Field(ge=8, le=8192)
    seed: int = Field(ge=0, le=LAST_SEED)
    feature_loss: float = Field(ge=0, le=1000)
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
    """What `fit` needs of whatever saves its state: tensors by name, and values that JSON can hold."""

    state: tuple[int, dict[str, Tensor], dict] | None  # epoch, tensors and values to resume from

    def due(self, epoch: int) -> bool:
        """Whether the state at this epoch's end is to be saved."""
        ...

    def save(self, epoch: int, tensors: dict[str, Tensor], values: dict) -> None:
        """Save it."""


def denoise(
    model: Model, latents: Tensor, noise: Tensor, times: Tensor, text: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The unweighted mean squared error of the model's prediction, a scalar; the prediction; its noisy latents.

    Latents, noise and the latter two are (b, c, h, w), times (b,).
    """
    noisy = model.noisy(latents, noise, times)
    prediction = model.predict(noisy, times, text).float()
    return F.mse_loss(prediction, model.target(latents, noise, times)), prediction, noisy


@torch.no_grad()
def fixed_loss(model: Model, data: Encoded, draws: int = 4, batch: int = 16, seed: int = 0) -> float:
    """Mean loss at `draws` times and noises a picture that depend on `seed` alone: what compares two states of the
    weights.

    The times lie one in each equal share of the training's own.
    """
    n = len(data.mean) * draws
    generator = torch.Generator().manual_seed(seed)
    shape = (n, *data.mean.shape[1:])
    noise = torch.randn(shape, generator=generator)
    times = model.times_at((torch.rand(1, generator=generator) + torch.arange(n) / n) % 1)
    times = times[torch.randperm(n, generator=generator)]
    which = torch.arange(n) % len(data.mean)
    total = 0.0
    for part in torch.arange(n).split(batch):
        i = which[part].to(data.mean.device)
        text = {k: v[i] for k, v in data.text.items()}
        noise_and_times = noise[part].to(data.mean.device), times[part].to(data.mean.device)
        total += denoise(model, data.mean[i], *noise_and_times, text)[0].item() * len(part)
    return total / n


def fit(
    model: Model,
    data: Encoded,
    method: Method,
    parameters: list[torch.nn.Parameter],
    config: TrainConfig,
    accelerator,
    feature_loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None,
    checkpoints: Checkpoints | None = None,
) -> Iterator[dict]:
    """Train `parameters` of the model's network; yield a record after every epoch and after what the method did there.

    `feature_loss` gives what is added to a step's loss from its prediction and noisy latents (b, c, h, w), times (b,)
    and the pictures' indices (b,); the recorded loss is without it, and without a method's penalty.

    An epoch sees every picture once. What a step draws depends on (seed, step) alone, and an epoch's order on
    (seed, epoch); so a training resumed from `checkpoints` ends with the same bytes as one that was never
    stopped. Raises `InputError` when the loss is not finite.
    """
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    model.network, optimizer = accelerator.prepare(model.network, optimizer)
    data = data.to(accelerator.device)
    n = len(data.mean)
    method.begin(config.epochs * math.ceil(n / config.batch_size))
    done = 0
    if checkpoints and checkpoints.state:
        done, tensors, values = checkpoints.state
        _restore(tensors, values, parameters, optimizer.optimizer, method, accelerator.scaler)
    step = done * math.ceil(n / config.batch_size)
    for epoch in range(done + 1, config.epochs + 1):
        order = torch.randperm(n, generator=_generator(config.seed, epoch, 0))
        losses, sum_of_totals = [], torch.zeros(())
        for chosen in order.split(config.batch_size):
            step += 1
            draw = _generator(config.seed, step, 1)
            shape = (2, len(chosen), *data.mean.shape[1:])
            spread, noise = torch.randn(shape, generator=draw).to(data.mean)  # (b, c, h, w) each
            times = model.draw_times(len(chosen), draw).to(data.mean.device)
            i = chosen.to(data.mean.device)
            latents = data.mean[i] + data.std[i] * spread
            with accelerator.autocast():
                text = {k: v[i] for k, v in data.text.items()}
                loss, prediction, noisy = denoise(model, latents, noise, times, text)
            total = loss if (penalty := method.penalty()) is None else loss + penalty
            if feature_loss:
                total = total + feature_loss(prediction, noisy, times, i)
            accelerator.backward(total)
            accelerator.clip_grad_norm_(parameters, config.max_grad_norm)
            optimizer.step()
            method.step_end(step)
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())
            sum_of_totals = sum_of_totals + total.detach()
        mean = torch.stack(losses).mean().item()
        check = mean + sum_of_totals.item()
        if not math.isfinite(check):
            raise InputError(
                f"train.learning_rate = {config.learning_rate}: the loss is {check} in epoch {epoch}; "
                "lower it, or look for a broken picture"
            )
        yield {"event": "epoch", "epoch": epoch, "loss": mean}
        draw = _generator(config.seed, epoch, 2)
        probe = functools.partial(fixed_loss, model, data)
        if record := method.epoch_end(EpochEnd(epoch, config.epochs, mean, draw, optimizer.optimizer, probe)):
            yield {"event": "restart", "epoch": epoch, **record}
        if checkpoints and (checkpoints.due(epoch) or epoch == config.epochs):
            checkpoints.save(epoch, *_state(parameters, optimizer.optimizer, method, accelerator.scaler))


def _state(parameters, optimizer, method, scaler):
    """The tensors and values that `_restore` reads."""
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
    """A separate generator for each draw: `stream` 0 orders an epoch, 1 is a step's, 2 a RESTART's."""
    return torch.Generator().manual_seed((seed * 3 + stream) * 1_000_003 + count)

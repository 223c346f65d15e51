"""The contract between a method and everything around it, and what LoRA methods share.

A method is a module of this package, imported by its name in params.yaml. It offers `Config`, a
frozen dataclass for its own section there, and `Adapter`, a subclass of `Method`.
"""

import abc
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aclora.errors import InputError, did_you_mean

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")  # the attention's linear layers


@dataclass(frozen=True)
class EpochEnd:
    """Where training stands when a method is asked whether it wants to do something."""

    epoch: int  # from 1
    epochs: int
    loss: float  # mean training loss of this epoch
    generator: torch.Generator  # for what the method draws now: of the training's seed and this epoch
    optimizer: torch.optim.Optimizer
    probe: Callable[[], float]  # the loss at fixed times and noise, as the weights are now


class Method:
    """What training and the stages ask of a method; a method that trains nothing keeps these as they are."""

    def __init__(self, config):
        self.config = config

    def attach(self, unet: nn.Module) -> list[nn.Parameter]:
        """Put the adapter into `unet` and return what is to be trained."""
        return []

    def begin(self, steps: int) -> None:
        """Called before the first step with how many there will be."""

    def penalty(self) -> Tensor | None:
        """A scalar to be added to the loss of the next step."""
        return None

    def step_end(self, step: int) -> None:
        """Called after each optimizer step (from 1), while the gradients are still there."""

    def epoch_end(self, end: EpochEnd) -> dict | None:
        """Called after each epoch; a record for the history if something was done."""
        return None

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """What a checkpoint must hold besides the trained parameters: tensors, and values that JSON can hold."""
        return {}, {}

    def restore(self, tensors: dict[str, Tensor], values: dict) -> None:
        """Go on from what `state` gave; called after `begin`."""

    def layer_names(self) -> list[str]:
        """The names of the modules that have an adapter, in the UNet's order."""
        return list(self.factors())

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """lora_A (r, k) and lora_B (d, r) of every layer, by its module's name; ΔW = B A. Empty where the method's
        change is no product of two factors."""
        return {}

    def weights(self) -> tuple[dict, dict[str, Tensor]] | None:
        """PEFT's config and tensors, of a method whose change is no product of two factors."""
        return None

    def signal(self) -> tuple[dict[str, tuple[Tensor, Tensor]], dict] | None:
        """The adapter cut down to its signal and a report of what that lost, where a method knows it."""
        return None


def check_rank(unet: nn.Module, rank: int, knob: str) -> None:
    """Raise `InputError` where `rank`, the value of `knob`, is above the smaller side of a layer of the attention."""
    for name, layer in unet.named_modules():
        if name.endswith(TARGETS) and rank > min(layer.weight.shape):
            side = min(layer.weight.shape)
            raise InputError(
                f"{knob} = {rank}: must be at most {side}, the smaller side of layer {name}; "
                f"about a quarter of it ({max(1, side // 4)}) is a good start"
            )


class Peft(Method, abc.ABC):
    """A tuner of PEFT's on the UNet's attention."""

    rank_knob: str  # the knob of Config that gives the rank, with its section, as errors name it
    prefix: str  # what the names of the tuner's parameters begin with

    @property
    def rank(self) -> int:
        return getattr(self.config, self.rank_knob.partition(".")[2])

    @abc.abstractmethod
    def peft_config(self):
        """The configuration of PEFT's that `Config` stands for."""

    def attach(self, unet):
        """Put PEFT's layers in. Needs a seeded global generator.

        Raises `InputError` where the rank is above a layer's smaller side.
        """
        check_rank(unet, self.rank, self.rank_knob)
        self.unet = unet
        unet.add_adapter(self.peft_config())
        return [p for p in unet.parameters() if p.requires_grad]

    def layer_names(self):
        tuned = (n.partition(f".{self.prefix}")[0] for n, _ in self.unet.named_parameters() if f".{self.prefix}" in n)
        return list(dict.fromkeys(tuned))

    def weights(self):
        from peft import get_peft_model_state_dict

        config = self.unet.peft_config["default"].to_dict()
        return config, get_peft_model_state_dict(self.unet, adapter_name="default")


class Lora(Peft):
    """PEFT's LoRA on the UNet's attention, lora_alpha = rank, so that ΔW = B A."""

    def peft_config(self):
        """Gaussian lora_A (std 1 / rank), zero lora_B: the function is unchanged."""
        from peft import LoraConfig  # takes seconds: only where it is used

        return LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=list(TARGETS), init_lora_weights="gaussian")

    def attach(self, unet):
        super().attach(unet)
        self.layers = {
            name: (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
            for name, layer in unet.named_modules()
            if hasattr(layer, "lora_A")
        }
        return [p for pair in self.layers.values() for p in pair]

    def layer_names(self):
        return list(self.layers)

    def factors(self):
        return {name: (a.detach(), b.detach()) for name, (a, b) in self.layers.items()}

    def weights(self):
        return None  # the factors say it all


def load(method: str):
    """The module of a method by its name in params.yaml; `InputError` for an unknown one."""
    known = sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "export")
    if method not in known:
        raise InputError(f"method = {method!r} is unknown; {did_you_mean(method, known)}")
    return importlib.import_module(f"{__name__}.{method}")

"""The contract between a training method and everything around it.

A method is one file in `methods/`, named by the knob `method`. The training loop calls the hooks below.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aclora.core.discovery import load


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

    config_type: type  # the model of the method's section in params.yaml

    def __init__(self, config):
        self.config = config

    def check_layers(self, layers: Mapping[str, nn.Module]) -> None:
        """Raise `InputError` where the section's values do not fit these layers of the network, by their names.

        The layers need no values: before a run they are known by their shapes alone.
        """

    def attach(self, network: nn.Module, layers: Sequence[str]) -> list[nn.Parameter]:
        """Put the adapter into the network's linear layers whose names end with one of `layers`, at a dot (a model's
        `adapter_layers`); return the parameters to train."""
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
        """The names of the modules that have an adapter, in the network's order."""
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


def method_named(name: str) -> type[Method]:
    """The method that params.yaml names: a file of `methods/`, or a module of one's own by its dotted name.

    Such a module says which class it is: `METHOD = AcLora`. Raises `InputError` for an unknown name.
    """
    return load("methods", name, "method", "METHOD", Method)

"""LoRA layers put into a network by PEFT: what the methods built on PEFT share."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from aclora.core.errors import InputError
from aclora.core.method import Method


def matching(network: nn.Module, ends: Sequence[str]) -> dict[str, Any]:
    """The network's layers whose names are one of `ends` or end with it at a dot, by name, in the network's order."""
    dotted = tuple(f".{end}" for end in ends)
    return {name: layer for name, layer in network.named_modules() if f".{name}".endswith(dotted)}


def check_rank(layers: Mapping[str, Any], rank: int, knob: str) -> None:
    """Raise `InputError` where `rank`, the value of `knob`, is above the smaller side of a linear layer."""
    for name, layer in layers.items():
        side = min(layer.weight.shape)
        if rank > side:
            raise InputError(
                f"{knob} = {rank}: must be at most {side}, the smaller side of layer {name}; "
                f"about a quarter of it ({max(1, side // 4)}) is a good start"
            )


class PeftTuner(Method, abc.ABC):
    """A tuner of PEFT's on the layers that the model names."""

    rank_knob: str  # the knob that gives the rank, with its section, as errors name it
    prefix: str  # what the names of the tuner's parameters begin with

    @property
    def rank(self) -> int:
        return getattr(self.config, self.rank_knob.rpartition(".")[2])

    @abc.abstractmethod
    def peft_config(self):
        """PEFT's configuration of this tuner, on `self.targets`."""

    def check_layers(self, layers):
        """Raises `InputError` where the rank is above a layer's smaller side."""
        check_rank(layers, self.rank, self.rank_knob)

    def attach(self, network, layers):
        """Put PEFT's layers in. Needs a seeded global generator. Raises `InputError` as `check_layers` does."""
        self.check_layers(matching(network, layers))
        self.network: Any = network
        self.targets = list(layers)
        self.network.add_adapter(self.peft_config())
        return [p for p in network.parameters() if p.requires_grad]

    def layer_names(self):
        tuned = (
            n.partition(f".{self.prefix}")[0] for n, _ in self.network.named_parameters() if f".{self.prefix}" in n
        )
        return list(dict.fromkeys(tuned))

    def weights(self):
        from peft import get_peft_model_state_dict

        config = self.network.peft_config["default"].to_dict()
        return config, get_peft_model_state_dict(self.network, adapter_name="default")


class LoraTuner(PeftTuner):
    """PEFT's LoRA, lora_alpha = rank, so that ΔW = B A."""

    def peft_config(self):
        """Gaussian lora_A (std 1 / rank), zero lora_B: the function is unchanged."""
        from peft import LoraConfig  # takes seconds: only where it is used

        return LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=self.targets, init_lora_weights="gaussian")

    def attach(self, network, layers):
        super().attach(network, layers)
        self.layers = {
            name: (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
            for name, layer in network.named_modules()
            if hasattr(layer, "lora_A")
        }
        return [p for pair in self.layers.values() for p in pair]

    def layer_names(self):
        return list(self.layers)

    def factors(self):
        return {name: (a.detach(), b.detach()) for name, (a, b) in self.layers.items()}

    def weights(self):
        return None  # the factors say it all

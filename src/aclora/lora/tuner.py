"""LoRA layers put into a network by PEFT: what the methods built on PEFT share."""

import abc

from torch import nn

from aclora.core.errors import InputError
from aclora.core.method import Method

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")  # the attention's linear layers


def check_rank(unet: nn.Module, rank: int, knob: str) -> None:
    """Raise `InputError` where `rank`, the value of `knob`, is above the smaller side of a layer of the attention."""
    for name, layer in unet.named_modules():
        if name.endswith(TARGETS) and rank > min(layer.weight.shape):
            side = min(layer.weight.shape)
            raise InputError(
                f"{knob} = {rank}: must be at most {side}, the smaller side of layer {name}; "
                f"about a quarter of it ({max(1, side // 4)}) is a good start"
            )


class PeftTuner(Method, abc.ABC):
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


class LoraTuner(PeftTuner):
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

"""LoRA-FA (arXiv 2308.03303): LoRA whose lora_A stays as it was drawn; only lora_B is trained."""

from pydantic import Field

from aclora.core.config import Config
from aclora.lora.tuner import LoraTuner


class LoraFaConfig(Config):
    """The `examples.lora_fa` section of params.yaml."""

    rank: int = Field(ge=1)


class LoraFa(LoraTuner):
    """Half of LoRA's trained parameters, and half of its optimizer state."""

    config_type = LoraFaConfig

    rank_knob = "examples.lora_fa.rank"

    def attach(self, network, layers):
        super().attach(network, layers)
        for a, _ in self.layers.values():
            a.requires_grad_(False)
        return [b for _, b in self.layers.values()]


METHOD = LoraFa

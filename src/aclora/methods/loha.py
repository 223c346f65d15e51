"""LoHa (arXiv 2108.06098): ΔW as the elementwise product of two products of factors, of rank up to r². PEFT's."""

from pydantic import Field

from aclora.core.config import Config
from aclora.lora.tuner import PeftTuner


class LoHaConfig(Config):
    """The `loha` section of params.yaml."""

    rank: int = Field(ge=1)


class LoHa(PeftTuner):
    """PEFT's LoHa, alpha = rank."""

    config_type = LoHaConfig

    rank_knob, prefix = "loha.rank", "hada_"

    def peft_config(self):
        from peft import LoHaConfig

        return LoHaConfig(r=self.rank, alpha=self.rank, target_modules=self.targets)


METHOD = LoHa

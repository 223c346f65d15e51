"""LoHa (arXiv 2108.06098): ΔW as the elementwise product of two products of factors, of rank up to r². PEFT's."""

import dataclasses

from aclora.core.errors import require
from aclora.lora.tuner import PeftTuner


@dataclasses.dataclass(frozen=True)
class LoHaConfig:
    """The `loha` section of params.yaml."""

    rank: int = 4

    def __post_init__(self):
        require(self.rank >= 1, "rank", self.rank, "at least 1")


class LoHa(PeftTuner):
    """PEFT's LoHa, alpha = rank."""

    config_type = LoHaConfig

    rank_knob, prefix = "loha.rank", "hada_"

    def peft_config(self):
        from peft import LoHaConfig

        return LoHaConfig(r=self.rank, alpha=self.rank, target_modules=self.targets)


METHOD = LoHa

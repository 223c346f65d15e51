"""LoHa (arXiv 2108.06098): ΔW as the elementwise product of two products of factors, of rank up to r². PEFT's."""

import dataclasses

from aclora.adapters import TARGETS, Peft
from aclora.errors import require


@dataclasses.dataclass(frozen=True)
class Config:
    """The `loha` section of params.yaml."""

    rank: int = 4

    def __post_init__(self):
        require(self.rank >= 1, "rank", self.rank, "at least 1")


class Adapter(Peft):
    """PEFT's LoHa, alpha = rank."""

    rank_knob, prefix = "loha.rank", "hada_"

    def peft_config(self):
        from peft import LoHaConfig

        return LoHaConfig(r=self.rank, alpha=self.rank, target_modules=list(TARGETS))

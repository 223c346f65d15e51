"""LoKr (LyCORIS, arXiv 2309.14859): ΔW as a Kronecker product, its larger part of low rank. PEFT's."""

import dataclasses

from aclora.adapters import TARGETS, Peft
from aclora.errors import require


@dataclasses.dataclass(frozen=True)
class Config:
    """The `lokr` section of params.yaml."""

    rank: int = 4

    def __post_init__(self):
        require(self.rank >= 1, "rank", self.rank, "at least 1")


class Adapter(Peft):
    """PEFT's LoKr, alpha = rank."""

    rank_knob, prefix = "lokr.rank", "lokr_"

    def peft_config(self):
        from peft import LoKrConfig

        return LoKrConfig(r=self.rank, alpha=self.rank, target_modules=list(TARGETS))

"""LoKr (LyCORIS, arXiv 2309.14859): ΔW as a Kronecker product, its larger part of low rank. PEFT's."""

import dataclasses

from aclora.core.errors import require
from aclora.lora.tuner import PeftTuner


@dataclasses.dataclass(frozen=True)
class LoKrConfig:
    """The `lokr` section of params.yaml."""

    rank: int = 4

    def __post_init__(self):
        require(self.rank >= 1, "rank", self.rank, "at least 1")


class LoKr(PeftTuner):
    """PEFT's LoKr, alpha = rank."""

    config_type = LoKrConfig

    rank_knob, prefix = "lokr.rank", "lokr_"

    def peft_config(self):
        from peft import LoKrConfig

        return LoKrConfig(r=self.rank, alpha=self.rank, target_modules=self.targets)


METHOD = LoKr

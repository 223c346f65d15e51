"""LoKr (LyCORIS, arXiv 2309.14859): ΔW as a Kronecker product whose larger factor has low rank. PEFT's."""

from pydantic import Field

from aclora.core.config import Config
from aclora.lora.tuner import PeftTuner


class LoKrConfig(Config):
    """The `lokr` section of params.yaml."""

    rank: int = Field(ge=1)


class LoKr(PeftTuner):
    """PEFT's LoKr, alpha = rank."""

    config_type = LoKrConfig

    rank_knob, prefix = "lokr.rank", "lokr_"

    def peft_config(self):
        from peft import LoKrConfig

        return LoKrConfig(r=self.rank, alpha=self.rank, target_modules=self.targets)


METHOD = LoKr

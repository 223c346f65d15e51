"""DoRA (arXiv 2402.09353): LoRA for the direction of each weight's columns, and a magnitude of their own. PEFT's."""

import dataclasses

from aclora.core.errors import require
from aclora.lora.tuner import PeftTuner


@dataclasses.dataclass(frozen=True)
class DoraConfig:
    """The `dora` section of params.yaml."""

    rank: int = 4

    def __post_init__(self):
        require(self.rank >= 1, "rank", self.rank, "at least 1")


class Dora(PeftTuner):
    """PEFT's LoRA with use_dora, lora_alpha = rank."""

    config_type = DoraConfig

    rank_knob, prefix = "dora.rank", "lora_"

    def peft_config(self):
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.rank,
            target_modules=self.targets,
            init_lora_weights="gaussian",
            use_dora=True,
        )


METHOD = Dora

"""DoRA (arXiv 2402.09353): LoRA for the direction of each weight's columns, and a trained magnitude. PEFT's."""

from pydantic import Field

from aclora.core.config import Config
from aclora.lora.tuner import PeftTuner


class DoraConfig(Config):
    """The `dora` section of params.yaml."""

    rank: int = Field(ge=1)


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

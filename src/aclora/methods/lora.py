"""Plain LoRA at a fixed rank (Hu et al., arXiv 2106.09685): somebody has to guess the rank."""

from pydantic import Field

from aclora.core.config import Config
from aclora.lora.tuner import LoraTuner


class LoraConfig(Config):
    """The `lora` section of params.yaml."""

    rank: int = Field(ge=1)


class Lora(LoraTuner):
    """LoRA at the rank that params.yaml gives."""

    config_type = LoraConfig

    rank_knob = "lora.rank"


METHOD = Lora

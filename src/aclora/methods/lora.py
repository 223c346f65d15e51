"""Plain LoRA at a fixed rank (Hu et al., arXiv 2106.09685): the rival that needs its rank guessed."""

from dataclasses import dataclass

from aclora.core.errors import require
from aclora.lora.tuner import LoraTuner


@dataclass(frozen=True)
class LoraConfig:
    """The `lora` section of params.yaml."""

    rank: int = 4

    def __post_init__(self):
        require(self.rank >= 1, "rank", self.rank, "at least 1")


class Lora(LoraTuner):
    """LoRA whose rank stays what it is."""

    config_type = LoraConfig

    rank_knob = "lora.rank"


METHOD = Lora

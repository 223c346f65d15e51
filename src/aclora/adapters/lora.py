"""Plain LoRA at a fixed rank (Hu et al., arXiv 2106.09685): the rival that needs its rank guessed."""

from dataclasses import dataclass

from aclora.adapters import Lora
from aclora.errors import require


@dataclass(frozen=True)
class Config:
    """The `lora` section of params.yaml."""

    rank: int = 4

    def __post_init__(self):
        require(self.rank >= 1, "rank", self.rank, "at least 1")


class Adapter(Lora):
    """LoRA whose rank stays what it is."""

    rank_knob = "lora.rank"

"""OFT (Qiu et al., arXiv 2306.07280): each weight is rotated in blocks of its inputs; lengths and angles stay."""

from pydantic import Field

from aclora.core.config import Config
from aclora.core.errors import InputError
from aclora.lora.tuner import PeftTuner


class OftConfig(Config):
    """The `oft` section of params.yaml."""

    block_size: int = Field(ge=2)


class Oft(PeftTuner):
    """PEFT's OFT with the exact Cayley parameterisation: W' = W R, R block-diagonal and orthogonal."""

    config_type = OftConfig

    rank_knob, prefix = "oft.block_size", "oft_"

    def check_layers(self, layers):
        """Raises `InputError` where the blocks do not divide a layer's input."""
        size = self.config.block_size
        for name, layer in layers.items():
            width = layer.weight.shape[1]
            if width % size:
                fits = ", ".join(str(n) for n in range(2, min(width, 64) + 1) if width % n == 0)
                raise InputError(f"oft.block_size = {size}: must divide {width}, the input of layer {name}: {fits}")

    def peft_config(self):
        from peft import OFTConfig

        size = self.config.block_size
        return OFTConfig(r=0, oft_block_size=size, use_cayley_neumann=False, target_modules=self.targets)


METHOD = Oft

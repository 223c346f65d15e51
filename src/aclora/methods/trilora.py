"""TriLoRA: ΔW = V Σ Uᵀ, where Σ is a trained diagonal that starts as the weight's top singular values (equation 6).

For PyTorch's W (out, in): Uᵀ (r, in) is `lora_A`, V (out, r) is `lora_B`, Σ (r,) is `sigma`.
"""

from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aclora.core.config import Config
from aclora.core.method import Method
from aclora.lora.tuner import check_rank, matching


class TriLoraConfig(Config):
    """The `trilora` section of params.yaml."""

    rank: int = Field(ge=1)


class TriLinear(nn.Module):
    """A frozen linear layer plus ΔW: x Wᵀ + bias + ((x U) Σ) Vᵀ. V starts at zero, so the output is unchanged at first.

    U, Σ and V are all trained. Nothing keeps U and V orthogonal.
    """

    def __init__(self, base: nn.Linear, rank: int):
        super().__init__()
        weight = base.weight.detach()
        self.base = base
        self.lora_A = nn.Parameter(
            torch.randn(rank, base.in_features).to(weight) / rank
        )  # std 1 / r, as in methods/lora.py
        self.sigma = nn.Parameter(top_singular_values(weight, rank).to(weight))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank).to(weight))

    def forward(self, x: Tensor) -> Tensor:
        """x (…, in) → (…, out)."""
        return self.base(x) + F.linear(F.linear(x, self.lora_A) * self.sigma, self.lora_B)


class TriLora(Method):
    """TriLoRA on the layers that the model names."""

    config_type = TriLoraConfig

    def check_layers(self, layers):
        """Raises `InputError` where the rank is above a layer's smaller side."""
        check_rank(layers, self.config.rank, "trilora.rank")

    def attach(self, network, layers):
        """Needs a seeded global generator. Raises `InputError` as `check_layers` does."""
        found = matching(network, layers)
        self.check_layers(found)
        self.tuned = {name: TriLinear(cast(nn.Linear, layer), self.config.rank) for name, layer in found.items()}
        for name, layer in self.tuned.items():
            network.set_submodule(name, layer)
        return [p for layer in self.tuned.values() for p in (layer.lora_A, layer.sigma, layer.lora_B)]

    def factors(self):
        """lora_B includes Σ."""
        return {n: (t.lora_A.detach(), (t.lora_B * t.sigma).detach()) for n, t in self.tuned.items()}


def top_singular_values(weight: Tensor, rank: int) -> Tensor:
    """The `rank` largest singular values of a weight (d, k), descending, float32.

    A randomised range finder with subspace iteration (Halko et al., arXiv 0909.4061, algorithm 4.4); the iterations
    compensate for spectra that fall slowly, as those of weights do. Draws from the global generator.
    """
    wide = min(2 * rank + 8, *weight.shape)
    return torch.svd_lowrank(weight.float(), q=wide, niter=6)[1][:rank]


METHOD = TriLora

"""TriLoRA: ΔW = V Σ Uᵀ, Σ a trained diagonal that starts as the top singular values of the weight (its equation 6).

With PyTorch's W (out × in): Uᵀ (r × in) is here lora_A, V (out × r) lora_B, Σ `sigma` (r,).
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aclora.core.errors import require
from aclora.core.method import Method
from aclora.lora.tuner import check_rank, matching


@dataclasses.dataclass(frozen=True)
class TriLoraConfig:
    """The `trilora` section of params.yaml."""

    rank: int = 4

    def __post_init__(self):
        require(self.rank >= 1, "rank", self.rank, "at least 1")


class TriLinear(nn.Module):
    """A frozen linear layer and its ΔW: x Wᵀ + bias + ((x U) Σ) Vᵀ. Zero V: the function is unchanged at first.

    U and V are not kept orthogonal; all three are trained.
    """

    def __init__(self, base: nn.Linear, rank: int):
        super().__init__()
        weight = base.weight.detach()
        self.base = base
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features).to(weight) / rank)  # std 1 / r, as our LoRA's
        self.sigma = nn.Parameter(top_singular_values(weight, rank).to(weight))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank).to(weight))

    def forward(self, x: Tensor) -> Tensor:
        """x (…, in) → (…, out)."""
        return self.base(x) + F.linear(F.linear(x, self.lora_A) * self.sigma, self.lora_B)


class TriLora(Method):
    """TriLoRA on the layers that the model names."""

    config_type = TriLoraConfig

    def attach(self, network, layers):
        """Needs a seeded global generator. Raises `InputError` where the rank is above a layer's smaller side."""
        found = matching(network, layers)
        check_rank(found, self.config.rank, "trilora.rank")
        self.tuned = {name: TriLinear(layer, self.config.rank) for name, layer in found.items()}
        for name, layer in self.tuned.items():
            network.set_submodule(name, layer)
        return [p for layer in self.tuned.values() for p in (layer.lora_A, layer.sigma, layer.lora_B)]

    def factors(self):
        """Σ is folded into lora_B."""
        return {n: (t.lora_A.detach(), (t.lora_B * t.sigma).detach()) for n, t in self.tuned.items()}


def top_singular_values(weight: Tensor, rank: int) -> Tensor:
    """The `rank` largest singular values of a weight (d, k), descending, float32, by a randomised range finder
    with subspace iteration (Halko et al., arXiv 0909.4061, algorithm 4.4).

    Draws from the global generator. The iterations make up for spectra that fall slowly, as weights' do.
    """
    wide = min(2 * rank + 8, *weight.shape)
    return torch.svd_lowrank(weight.float(), q=wide, niter=6)[1][:rank]


METHOD = TriLora

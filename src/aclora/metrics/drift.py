"""Drift: what an adapter changes where nobody called its style. Pairs of one prompt, without trigger, and one seed."""

import torch.nn.functional as F
from torch import Tensor

from aclora.core.errors import InputError
from aclora.metrics.checks import comparable
from aclora.metrics.contract import Figure


def likeness(adapter: Tensor, base: Tensor) -> Tensor:
    """Cosine of each pair's features, with the adapter (n, d) and without (n, d) → (n,), float64; 1: no change."""
    adapter, base = comparable("drift", adapter, base, least=1)
    if len(adapter) != len(base):
        raise InputError(
            f"drift of {len(adapter)} and {len(base)} pictures: each needs its pair, of one prompt and seed"
        )
    return F.cosine_similarity(adapter, base, dim=-1)


def drift(adapter: Tensor, base: Tensor) -> float:
    """1 − the mean `likeness`: 0 for an adapter that leaves prompts without its trigger alone."""
    return 1 - likeness(adapter, base).mean().item()


FIGURES = (
    Figure(
        name="drift",
        label="drift without trigger",
        better=-1,
        encoder="dino",
        measure=lambda pictures, context: 1 - likeness(pictures.features("dino"), context.base.features("dino")),
        of="without_trigger",
        against="without_trigger",
        paired=True,
        with_base=False,
        place=100,
    ),
)

"""DINO score (arXiv 2208.12242, section 4.1): how alike do generated and real pictures look, to a self-taught net?"""

import torch.nn.functional as F
from torch import Tensor

from aclora.metrics.checks import comparable
from aclora.metrics.contract import Figure


def dino_score(x: Tensor, real: Tensor) -> float:
    """Mean cosine over all pairs of features x (n, d) and real (m, d), float64.

    It rewards collapse: one picture near the reals' mean, again and again, beats fresh ones. Read it beside KID
    and below `ceiling`.
    """
    return to_real(x, real).mean().item()


def to_real(x: Tensor, real: Tensor) -> Tensor:
    """Each x's mean cosine with the reals: (n, d) and (m, d) → (n,), float64."""
    x, real = (F.normalize(s, dim=-1) for s in comparable("DINO", x, real, least=1))
    return x @ real.mean(0)


def ceiling(real: Tensor) -> float:
    """Mean cosine over all pairs of different real pictures (m, d), m at least 2: what a perfect generator scores."""
    real, _ = comparable("DINO's ceiling", real, real)
    unit, m = F.normalize(real, dim=-1), len(real)
    return ((unit.sum(0).square().sum() - m) / (m * (m - 1))).item()


FIGURES = (
    Figure(
        name="dino_score",
        label="DINO score",
        better=1,
        encoder="dino",
        measure=lambda pictures, context: to_real(pictures.features("dino"), context.real.features("dino")),
        per_real=lambda pictures, context: to_real(context.real.features("dino"), pictures.features("dino")),
        of_real=lambda context: ceiling(context.real.features("dino")),
        paired=True,
        in_average=True,
        place=60,
    ),
)

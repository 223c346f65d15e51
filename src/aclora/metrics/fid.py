"""Fréchet distance between two sets of features (FID, arXiv 1706.08500, equation 6)."""

import torch
from torch import Tensor

from aclora.metrics.checks import comparable
from aclora.metrics.contract import Figure


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """‖μx − μy‖² + tr(Σx + Σy − 2 √(Σx Σy)) of features x (n, d) and y (m, d), n and m at least 2.

    tr √(Σx Σy) is the nuclear norm of A Bᵀ with A = (x − μx) / √(n − 1), B likewise: no matrix
    root, and never a d × d matrix. float64. Biased upwards for small sets.
    """
    x, y = comparable("FID", x, y)
    a = (x - x.mean(0)) / (len(x) - 1) ** 0.5  # (n, d)
    b = (y - y.mean(0)) / (len(y) - 1) ** 0.5  # (m, d)
    shared = torch.linalg.svdvals(a @ b.T).sum()
    return ((x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * shared).item()


FIGURES = (
    Figure(
        name="fid",
        label="FID",
        better=-1,
        encoder="fid",
        measure=lambda pictures, context: frechet_distance(pictures.features("fid"), context.real.features("fid")),
        in_average=True,
        place=20,
    ),
)

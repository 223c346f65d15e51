"""How near generated pictures come to the ones that were trained on, and which of them are copies."""

import torch
import torch.nn.functional as F
from torch import Tensor

from aclora.metrics.checks import comparable

EXACT = "donot_use_mm_for_euclid_dist"  # the fast way is off by 1e-8 at 0, where copies are
NEAR = 0.5  # of the reals' own distance: docs/metrics.md shows what it finds and what it takes for a copy by mistake


def nearest(x: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """Each x's distance to its nearest training picture, and that one's index: (n, d) and (m, d) → (n,), (n,).

    Distance of features brought to length 1 (0 … 2), float64.
    """
    x, training = (F.normalize(s, dim=-1) for s in comparable("nearness", x, training, least=1))
    distance, index = torch.cdist(x, training, compute_mode=EXACT).min(1)
    return distance, index


def own_distance(training: Tensor, real: Tensor | None = None) -> float:
    """How far apart pictures of the style are: the median distance of `real` (k, d) ones, which nobody trained on, to
    their nearest of `training` (m, d); without them of each training picture to its nearest other.

    At least 0.001, so that a copy is one even where the training pictures are all there twice.
    """
    if real is not None:
        own = nearest(real, training)[0]
    else:
        unit, _ = comparable("the training pictures' distances", training, training)
        unit = F.normalize(unit, dim=-1)
        own = torch.cdist(unit, unit, compute_mode=EXACT).fill_diagonal_(torch.inf).min(1).values
    return max(own.quantile(0.5).item(), 1e-3)


def copies(x: Tensor, training: Tensor, own: float) -> Tensor:
    """Which of x (n, d) are copies of one of `training` (m, d): nearer than half of `own`, bool (n,)."""
    return nearest(x, training)[0] < NEAR * own

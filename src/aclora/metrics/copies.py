"""How near generated pictures come to the ones that were trained on, and which of them are copies."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aclora.metrics.checks import comparable
from aclora.metrics.contract import Context, Figure, PictureSet

EXACT = "donot_use_mm_for_euclid_dist"  # the fast way is off by 1e-8 at 0, where copies are
NEAR = 0.5  # of the real pictures' own distance; docs/results/metrics.md shows what that finds, and what by mistake


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


def closeness(pictures: PictureSet, context: Context) -> dict[str, Any]:
    """Of each picture its nearest training picture's name, the distance to it, and whether it is a copy (0 or 1).

    The unit of distance is the median of real pictures' distances to their nearest training picture.
    """
    training = context.training.features("clip")
    own = own_distance(training, context.real.features("clip") if context.held_out else None)
    distance, index = nearest(pictures.features("clip"), training)
    relative = distance / own
    return {
        "nearest_training": [context.training.names[i] for i in index.tolist()],
        "distance": relative,
        "copy": (relative < NEAR).long(),
    }


def share_of_copies(pictures: PictureSet, context: Context) -> float:
    """The share of pictures that are copies of a training picture."""
    return closeness(pictures, context)["copy"].double().mean().item()


FIGURES = (
    Figure(
        name="copies",
        label="share of copies",
        better=-1,
        encoder="clip",
        measure=share_of_copies,
        of_real=lambda context: share_of_copies(context.real, context) if context.held_out else None,
        columns=closeness,
        against="training",
        gate="absolute",
        place=90,
    ),
    Figure(
        name="nearest_training",
        label="distance to nearest training picture, real = 1",
        better=0,
        encoder="clip",
        measure=lambda pictures, context: closeness(pictures, context)["distance"].quantile(0.5).item(),
        against="training",
        place=91,
    ),
)

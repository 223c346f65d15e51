"""CMMD (arXiv 2401.09603): maximum mean discrepancy of CLIP's embeddings under a Gaussian kernel, here unbiased."""

import torch
import torch.nn.functional as F
from torch import Tensor

from aclora.metrics.checks import comparable
from aclora.metrics.contract import Figure
from aclora.metrics.kid import squared_mmd

SIGMA, SCALE = 10.0, 1000.0  # the paper's bandwidth, and its factor that makes values readable


def clip_mmd(x: Tensor, y: Tensor) -> float:
    """1000 · `squared_mmd` of embeddings x (n, d) and y (m, d), brought to length 1; n and m at least 2, float64.

    Kernel exp(−‖a − b‖² / (2 · 10²)). The paper's own estimator keeps the pairs of a picture with itself and is
    biased by them; here they are left out.
    """
    x, y = (F.normalize(s, dim=-1) for s in comparable("CMMD", x, y))
    return SCALE * squared_mmd(_kernel(x, x), _kernel(y, y), _kernel(x, y))


def _kernel(a, b):
    return torch.exp(-(2 - 2 * a @ b.T) / (2 * SIGMA**2))  # ‖a − b‖² of unit vectors


FIGURES = (
    Figure(
        name="cmmd",
        label="CMMD",
        better=-1,
        encoder="clip",
        measure=lambda pictures, context: clip_mmd(pictures.features("clip"), context.real.features("clip")),
        place=40,
    ),
)

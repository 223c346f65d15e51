"""Kernel Inception distance (arXiv 1801.01401): unbiased, and so fit for small sets."""

from torch import Tensor

from aclora.metrics.checks import comparable
from aclora.metrics.contract import Figure


def squared_mmd(xx: Tensor, yy: Tensor, xy: Tensor) -> float:
    """Squared maximum mean discrepancy from kernel values xx (n, n), yy (m, m) and xy (n, m).

    The full U-statistic over all pairs, no subsets (Gretton et al. 2012, equation 3): its expectation is 0
    for sets of one distribution, so a single value may be below 0.
    """
    n, m = xy.shape
    within_x = (xx.sum() - xx.trace()) / (n * (n - 1))
    within_y = (yy.sum() - yy.trace()) / (m * (m - 1))
    return (within_x + within_y - 2 * xy.mean()).item()


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """`squared_mmd` of features x (n, d) and y (m, d) under the kernel (x·y / d + 1)³; n and m at least 2, float64."""
    x, y = comparable("KID", x, y)
    return squared_mmd(_kernel(x, x), _kernel(y, y), _kernel(x, y))


def _kernel(a, b):
    return (a @ b.T / a.shape[1] + 1) ** 3


FIGURES = (
    Figure(
        name="kid",
        label="KID",
        better=-1,
        encoder="fid",
        measure=lambda pictures, context: kernel_distance(pictures.features("fid"), context.real.features("fid")),
        gate="share_of_base",
        place=10,
    ),
)

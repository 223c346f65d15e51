"""Kernel Inception distance (arXiv 1801.01401): unbiased, and so fit for small sets."""

from torch import Tensor

from aclora.errors import InputError


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Squared maximum mean discrepancy of features x (n, d) and y (m, d), n and m at least 2.

    Kernel (x·y / d + 1)³, the full U-statistic over all pairs, no subsets; float64. Its
    expectation is 0 for sets of one distribution, so a single value may be below 0.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise InputError(f"KID of {n} and {m} pictures: at least 2 of each are needed")
    x, y = x.double(), y.double()
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within_x = (xx.sum() - xx.trace()) / (n * (n - 1))
    within_y = (yy.sum() - yy.trace()) / (m * (m - 1))
    return (within_x + within_y - 2 * xy.mean()).item()


def _kernel(a, b):
    return (a @ b.T / a.shape[1] + 1) ** 3

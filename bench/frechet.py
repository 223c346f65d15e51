"""Time of the Fréchet distance from features to a number: ours, torchmetrics' and the one by matrix root.

`python -m bench.frechet`, a minute. Ours is the nuclear norm of an n × m matrix, the other two work on d × d ones,
so the fewer the pictures the larger the gap. The target is 10 ms at 12 real and 64 generated pictures of 2048
features; the command fails above it. What takes seconds is timed once, the rest is the median of several.
"""

import sys
import time
import warnings
from collections.abc import Callable
from statistics import median

import numpy as np
import scipy.linalg
import torch
from torch import Tensor
from torchmetrics.image.fid import _compute_fid

from aclora.metrics.fid import frechet_distance

SETS = ((12, 64, 2048), (256, 64, 256))  # real pictures, generated ones, features
TARGET = 0.010  # seconds, at the first of them


def torchmetrics_distance(x: Tensor, y: Tensor) -> float:
    """Eigenvalues of Σx Σy; torchmetrics' own class wants torch-fidelity, its formula does not."""
    return _compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov()).item()


def scipy_distance(x: Tensor, y: Tensor) -> float:
    """`linalg.sqrtm` of Σx Σy, as in the original code."""
    x, y = x.numpy(), y.numpy()
    cx, cy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer pictures than features: Σx Σy is singular, and sqrtm says so
        root = scipy.linalg.sqrtm(cx @ cy).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx) + np.trace(cy) - 2 * np.trace(root))


def timed(distance: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor) -> tuple[float, float, int]:
    """The distance, its seconds and how many runs they are the median of."""
    seconds = []
    while not seconds or (seconds[0] < 1 and len(seconds) < 10):
        start = time.perf_counter()
        value = distance(x, y)
        seconds.append(time.perf_counter() - start)
    return value, median(seconds), len(seconds)


def main() -> None:
    print(f"{'set':16}{'by':14}{'distance':>14}{'rel. diff.':>12}{'ms':>12}{'ratio':>10}{'runs':>6}")
    met = False
    for n, m, d in SETS:
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(n, d, generator=rng, dtype=torch.float64)
        y = 1.3 * torch.randn(m, d, generator=rng, dtype=torch.float64) + 0.3
        ours, fastest, runs = timed(frechet_distance, x, y)
        rows = [("ours", ours, fastest, runs)]
        rows += [("torchmetrics", *timed(torchmetrics_distance, x, y)), ("scipy sqrtm", *timed(scipy_distance, x, y))]
        for name, value, seconds, runs in rows:
            print(
                f"{f'{n} × {m} × {d}':16}{name:14}{value:14.6f}{abs(value - ours) / ours:12.1e}"
                f"{1000 * seconds:12.1f}{seconds / fastest:10.0f}{runs:6}",
                flush=True,
            )
        if (n, m, d) == SETS[0]:
            met = fastest <= TARGET
    print(f"target: ours in {1000 * TARGET:.0f} ms at {' × '.join(map(str, SETS[0]))}: {'met' if met else 'missed'}")
    sys.exit(not met)


if __name__ == "__main__":
    main()

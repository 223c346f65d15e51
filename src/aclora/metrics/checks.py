"""What features must be before a metric means anything."""

from torch import Tensor

from aclora.core.errors import InputError


def comparable(metric: str, x: Tensor, y: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """x (n, d) and y (m, d) in float64; `InputError` unless d is the same and n and m are at least `least`."""
    if min(len(x), len(y)) < least:
        raise InputError(f"{metric} of {len(x)} and {len(y)} pictures: at least {least} of each are needed")
    if x.shape[1:] != y.shape[1:]:
        raise InputError(
            f"{metric} of features of {x.shape[1]} and {y.shape[1]} numbers: both sets need the same encoder"
        )
    return x.double(), y.double()

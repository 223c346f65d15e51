"""What features must be before a metric means anything."""

import torch
from torch import Tensor

from aclora.errors import InputError


def finite(features: Tensor, names: list[str]) -> Tensor:
    """Features (n, …) as they are; `InputError` names the first picture of which one is not a finite number."""
    bad = ~torch.isfinite(features)
    bad = bad.flatten(1).any(1) if bad.ndim > 1 else bad
    if bad.any():
        raise InputError(f"{names[int(bad.nonzero()[0])]}: a feature of it is not a finite number; replace the picture")
    return features


def comparable(metric: str, x: Tensor, y: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """x (n, d) and y (m, d) in float64; `InputError` unless d is the same and n and m are at least `least`."""
    if min(len(x), len(y)) < least:
        raise InputError(f"{metric} of {len(x)} and {len(y)} pictures: at least {least} of each are needed")
    if x.shape[1:] != y.shape[1:]:
        raise InputError(
            f"{metric} of features of {x.shape[1]} and {y.shape[1]} numbers: both sets need the same encoder"
        )
    return x.double(), y.double()

"""Checks that tensors must pass before a number made of them means anything."""

import torch
from torch import Tensor

from aclora.core.errors import InputError


def finite(features: Tensor, names: list[str]) -> Tensor:
    """Features (n, …), unchanged. Raises `InputError` with the first picture's name that has one that is not finite."""
    bad = ~torch.isfinite(features)
    bad = bad.flatten(1).any(1) if bad.ndim > 1 else bad
    if bad.any():
        raise InputError(
            f"{names[int(bad.nonzero()[0])]}: one of its features is not a finite number; replace the picture"
        )
    return features

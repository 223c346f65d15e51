"""Checks that tensors must pass before a number made of them means anything."""

import torch
from torch import Tensor, nn

from aclora.core.errors import InputError


def finite(
    features: Tensor, names: list[str], what: str = "one of its features", remedy: str = "replace the picture"
) -> Tensor:
    """Features (n, …), unchanged. Raises `InputError` with the first picture's name that has one that is not finite."""
    bad = ~torch.isfinite(features)
    bad = bad.flatten(1).any(1) if bad.ndim > 1 else bad
    if bad.any():
        raise InputError(f"{names[int(bad.nonzero()[0])]}: {what} is not a finite number; {remedy}")
    return features


def all_finite(values: Tensor) -> bool:
    """Is every value a finite number? Their sum answers that of most tensors without another tensor of their size."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def finite_weights(network: nn.Module, name: str = "") -> None:
    """Raise `ValueError` where a weight or buffer of a network is not finite; `name` is the network's."""
    for key, values in network.state_dict().items():
        if values.is_floating_point() and not all_finite(values):
            raise ValueError(f"{f'{name}: ' if name else ''}a value of {key} is not a finite number; fetch it anew")

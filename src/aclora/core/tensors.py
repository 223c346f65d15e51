"""What tensors must be before a number made of them means anything."""

import torch
from torch import Tensor

from aclora.core.errors import InputError


def finite(features: Tensor, names: list[str]) -> Tensor:
    """Features (n, …) as they are; `InputError` names the first picture of which one is not a finite number."""
    bad = ~torch.isfinite(features)
    bad = bad.flatten(1).any(1) if bad.ndim > 1 else bad
    if bad.any():
        raise InputError(f"{names[int(bad.nonzero()[0])]}: a feature of it is not a finite number; replace the picture")
    return features

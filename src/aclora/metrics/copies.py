"""How near generated pictures come to the ones that were trained on."""

import torch
from torch import Tensor


def nearest_distance(x: Tensor, training: Tensor) -> Tensor:
    """Each x's distance to its nearest training picture: features (n, d) and (m, d) → (n,).

    Set beside the same of pictures that nobody trained on: copies are nearer than those.
    """
    return torch.cdist(x.double(), training.double()).min(1).values

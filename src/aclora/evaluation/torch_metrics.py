"""The metrics as torchmetrics: `update` with any batches in any loop, then `compute`; states sync over processes.

The pipeline itself calls the pure functions: importing torchmetrics takes seconds.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from aclora.core.errors import InputError
from aclora.core.tensors import finite
from aclora.metrics.clip_score import clip_score
from aclora.metrics.cmmd import clip_mmd
from aclora.metrics.copies import copies, own_distance
from aclora.metrics.dino_score import dino_score
from aclora.metrics.drift import drift
from aclora.metrics.fid import frechet_distance
from aclora.metrics.kid import kernel_distance
from aclora.metrics.nfid import normalised_fid


class Sets(Metric):
    """Named sets of features (n, d) that grow; `compute` is the class's `function` of all of them, float64.

    `update(features, into)` raises `InputError` for a set that does not exist or a feature that is no finite number;
    `compute` for a set to which nothing came, and where the function does.
    """

    full_state_update = False
    names: tuple[str, ...] = ("generated", "real")
    function: Callable[..., float]

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for name in self.names:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, features: Tensor, into: str) -> None:
        if into not in self.names:
            raise InputError(f"into = {into!r}: must be one of {', '.join(self.names)}")
        finite(features, [f"row {i} of the batch" for i in range(len(features))])
        getattr(self, into).append(features)

    def compute(self) -> Tensor:
        return torch.tensor(self.function(*(_all(self, name) for name in self.names)), dtype=torch.float64)


class FID(Sets):
    """`fid.frechet_distance` of the sets "generated" and "real"."""

    function = staticmethod(frechet_distance)


class KID(Sets):
    """`kid.kernel_distance` of the sets "generated" and "real"."""

    function = staticmethod(kernel_distance)


class CMMD(Sets):
    """`cmmd.clip_mmd` of the sets "generated" and "real"."""

    function = staticmethod(clip_mmd)


class DINOScore(Sets):
    """`dino_score.dino_score` of the sets "generated" and "real"."""

    function = staticmethod(dino_score)


class NFID(Sets):
    """`nfid.normalised_fid` of the sets "adapter", "base" and "real"."""

    names = ("adapter", "base", "real")
    function = staticmethod(normalised_fid)


class Drift(Sets):
    """`drift.drift` of the sets "adapter" and "base", whose pictures come in the same order."""

    names = ("adapter", "base")
    function = staticmethod(drift)


class Copies(Sets):
    """Share of `copies.copies` in the set "generated", given "training" and "real"."""

    names = ("generated", "training", "real")

    @staticmethod
    def function(generated: Tensor, training: Tensor, real: Tensor) -> float:
        return copies(generated, training, own_distance(training, real)).double().mean().item()


class PerImage(Metric):
    """One value a picture; `compute` is their mean, float64."""

    full_state_update = False
    values: list[Tensor]

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_state("values", [], dist_reduce_fx="cat")

    def update(self, values: Tensor) -> None:
        """Add the values of a batch, (n,)."""
        self.values.append(finite(values, [f"picture {i} of the batch" for i in range(len(values))]))

    def compute(self) -> Tensor:
        return _all(self, "values").double().mean()


class CLIPScore(PerImage):
    """Mean `clip_score.clip_score`."""

    def update(self, pictures: Tensor, prompts: Tensor) -> None:
        """Add the embeddings of a batch of pictures and of their prompts, (n, d) each."""
        super().update(clip_score(pictures, prompts))


class ImageReward(PerImage):
    """Mean reward; `update` takes what `encoders.image_reward.Reward.score` gives, (n,)."""


def _all(metric, name):
    state = getattr(metric, name)
    if isinstance(state, list) and not state:
        raise InputError(f"{type(metric).__name__}: no {name} came yet: call update before compute")
    return dim_zero_cat(state)

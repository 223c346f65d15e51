"""CLIP score (arXiv 2104.08718): does a picture show what its prompt says?"""

import torch.nn.functional as F
from torch import Tensor

from aclora.core.errors import InputError
from aclora.metrics.contract import Figure


def clip_score(pictures: Tensor, prompts: Tensor) -> Tensor:
    """100 · cosine of each picture's embedding (n, d) and its own prompt's (n, d) → (n,), float64.

    Not cut at 0: a mean of cut values has no meaning as an average.
    """
    if pictures.shape != prompts.shape:
        sizes = f"{tuple(pictures.shape)} picture and {tuple(prompts.shape)} prompt features"
        raise InputError(f"CLIP score of {sizes}: a prompt for each picture is needed, by the same encoder")
    return 100 * F.cosine_similarity(pictures.double(), prompts.double(), dim=-1)


FIGURES = (
    Figure(
        name="clip_score",
        label="CLIP score",
        better=1,
        encoder="clip",
        asks=("look", "read"),
        measure=lambda pictures, _: clip_score(pictures.features("clip"), pictures.outputs["clip"]["prompts"]),
        against="prompts",
        paired=True,
        in_average=True,
        place=50,
    ),
)

"""Normalised FID, as TriLoRA reports it: FID with the adapter relative to FID of the bare base model."""

from torch import Tensor

from aclora.metrics.contract import Figure
from aclora.metrics.fid import frechet_distance


def normalised_fid(adapter: Tensor, base: Tensor, real: Tensor) -> float:
    """FID(adapter, real) / FID(base, real), features (n, d), (k, d) and (m, d); NaN where the base's is 0.

    Below 1 the adapter is nearer. FID's bias in small sets pulls it towards 1.
    """
    of_base = frechet_distance(base, real)
    zero = 1e-9 * real.double().var(0).sum().item()  # what rounding leaves of a distance of 0
    return frechet_distance(adapter, real) / of_base if of_base > zero else float("nan")


FIGURES = (
    Figure(
        name="nfid",
        label="NFID, FID relative to the base's",
        better=-1,
        encoder="fid",
        measure=lambda pictures, context: normalised_fid(
            pictures.features("fid"), context.base.features("fid"), context.real.features("fid")
        ),
        with_base=False,
        place=30,
    ),
)

"""Cutting the rank of LoRA factors, layer by layer."""

from torch import Tensor

from aclora.core.errors import InputError, require
from aclora.lora.files import Factors
from aclora.lora.spectra import product_svd, rank_for_energy, truncate


def resize(
    factors: Factors,
    *,
    rank: int | None = None,
    energy: float | None = None,
    sv_fro: float | None = None,
    per_layer: bool = True,
) -> tuple[Factors, dict[str, float]]:
    """The best approximation of every layer at a lower rank, and each one's relative error (Frobenius).

    With d the singular values of ΔW, descending: `energy` p takes the smallest rank r with
    Σ_{i≤r} dᵢ² ≥ p Σ dᵢ²; `sv_fro` s the smallest with √(Σ_{i≤r} dᵢ² / Σ dᵢ²) ≥ s, which is energy s² and
    kohya's `resize_lora.py --dynamic_method sv_fro`. `rank` alone is the rank; beside another it is the
    bound. Unless `per_layer`, all layers get the largest rank that any needs. A layer whose rank is
    low enough stays as it is. By QR of the factors; the d × k product is never formed.
    """
    for knob, value in (("energy", energy), ("sv_fro", sv_fro)):
        require(value is None or 0 < value <= 1, knob, value, "above 0 and at most 1")
    require(rank is None or rank >= 1, "rank", rank, "at least 1")
    if not factors:
        raise InputError("there is nothing to resize: the adapter has no layer of a UNet or a transformer")
    share = sv_fro**2 if sv_fro is not None else energy
    keep = {layer: a.shape[0] for layer, (a, _) in factors.items()}
    if share is not None:
        keep = {layer: rank_for_energy(spectrum(*pair), share) for layer, pair in factors.items()}
        if not per_layer:
            keep = dict.fromkeys(keep, max(keep.values()))
    cut, errors = {}, {}
    for layer, (a, b) in factors.items():
        r = min(keep[layer], rank or keep[layer])
        if r >= a.shape[0]:
            cut[layer], errors[layer] = (a, b), 0.0
            continue
        small_a, small_b, errors[layer] = truncate(a.flatten(1), b.flatten(1), r)
        cut[layer] = small_a.reshape(-1, *a.shape[1:]), small_b.reshape(b.shape[0], -1, *b.shape[2:])
    return cut, errors


def spectrum(lora_A: Tensor, lora_B: Tensor) -> Tensor:
    """The singular values of B A, descending, float64; a convolution's as those of its d × (k·h·w) matrix."""
    return product_svd(lora_A.flatten(1), lora_B.flatten(1))[1]

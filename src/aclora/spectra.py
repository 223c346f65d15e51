"""Singular values of LoRA factors and of their product, and what is read off them.

Squares of singular values are energies. Everything is computed in float64: in float32 the small
singular values of a Gram matrix are wrong by far more than their own size.
"""

import torch
from torch import Tensor


def gram_eig(matrices: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Singular values and short-side singular vectors of n matrices with one short side r.

    Takes matrices of r × k or d × r (the short side is the smaller one); returns values
    (n, r), descending, and vectors (n, r, r), one in each column, both float64. One batched
    eigendecomposition of M Mᵀ (or Mᵀ M) serves all of them.
    """
    grams = []
    for m in matrices:
        m = m.detach().double()
        grams.append(m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m)
    squares, vectors = torch.linalg.eigh(torch.stack(grams))  # ascending
    return squares.flip(-1).clamp_min(0).sqrt(), vectors.flip(-1)


def signal_index(values: Tensor, p: float) -> Tensor:
    """Number of leading singular values whose summed energy stays strictly under p of the whole.

    `values` (…, r), descending; returns integers (…). It is 0 where the first value alone reaches
    p, and for a matrix of zeros. AC-LoRA (arXiv 2504.02231), section 3.
    """
    energy = values.double().square()
    return (energy.cumsum(-1) < p * energy.sum(-1, keepdim=True)).sum(-1)


def rank_for_energy(values: Tensor, p: float) -> int:
    """The smallest rank, at least 1, whose leading energy reaches p of the whole; `values` (r,)."""
    energy = values.double().square()
    return int((energy.cumsum(-1) < p * energy.sum()).sum().clamp(0, len(values) - 1)) + 1


def kept_energy(values: Tensor, rank: int) -> float:
    """Share of the energy in the `rank` leading values; 1 for a matrix of zeros."""
    energy = values.double().square()
    total = energy.sum().item()
    return energy[:rank].sum().item() / total if total > 0 else 1.0


def product_svd(lora_A: Tensor, lora_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compact SVD of B A through QR of the factors; the d × k product is never formed.

    lora_A (r, k), lora_B (d, r) → U (d, r), D (r,) descending, Vh (r, k), float64. With r above
    min(d, k) the inner size is that smaller side.
    """
    q_b, r_b = torch.linalg.qr(lora_B.detach().double())  # (d, r), (r, r)
    q_a, r_a = torch.linalg.qr(lora_A.detach().double().T)  # (k, r), (r, r)
    u, d, vh = torch.linalg.svd(r_b @ r_a.T)
    return q_b @ u, d, vh @ q_a.T


def truncate(lora_A: Tensor, lora_B: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The best approximation of B A at `rank`, as balanced factors, and its relative error.

    Returns lora_A (rank, k), lora_B (d, rank) in the inputs' dtype and
    ‖B A − B' A'‖ / ‖B A‖ (Frobenius; 0 for a product of zeros).
    """
    u, d, vh = product_svd(lora_A, lora_B)
    root = d[:rank].sqrt()
    error = (1 - kept_energy(d, rank)) ** 0.5 if d.square().sum() > 0 else 0.0
    a, b = root[:, None] * vh[:rank], u[:, :rank] * root
    return a.to(lora_A.dtype).contiguous(), b.to(lora_B.dtype).contiguous(), max(0.0, error)

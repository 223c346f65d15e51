"""Singular values of LoRA factors and of their product, and what is read off them.

Squares of singular values are energies. Everything is computed in float64: in float32 the small
singular values of a Gram matrix are wrong by far more than their own size.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

STACKED = 2**26  # entries of a stack of matrices at most: half a GiB in float64
STACKED_CPU = 2**18  # a stack that stays in a processor's cache


def alike(keys: list[Hashable], entries: list[int], device: torch.device) -> Iterator[list[int]]:
    """Positions of equal keys, in stacks: what can be computed at once without taking too much memory.

    `entries` tells how many numbers each position stands for; a stack has one position at least.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    for group in groups.values():
        size = max(1, (STACKED_CPU if device.type == "cpu" else STACKED) // max(1, entries[group[0]]))
        yield from (group[i : i + size] for i in range(0, len(group), size))


def stacked(matrices: list[Tensor]) -> Tensor:
    """Matrices of one shape as (g, …); a single one is not copied."""
    return matrices[0][None] if len(matrices) == 1 else torch.stack(matrices)


def on_every_core(work: Callable, parts: Iterable, device: torch.device) -> list:
    """`work(part)` of every part, in order, without gradients; on a CPU each core takes the next part by itself.

    LAPACK's eigenvalues of a small matrix take several times as long with two threads as with one.
    """

    @torch.no_grad()
    def quietly(part):
        return work(part)

    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return [quietly(part) for part in parts]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(quietly, parts))
    finally:
        torch.set_num_threads(threads)


def gram_eig(matrices: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Singular values and short-side singular vectors of n matrices with one short side r.

    Takes matrices of r × k or d × r (the short side is the smaller one); returns values
    (n, r), descending, and vectors (n, r, r), one in each column, both float64. One batched
    eigendecomposition of M Mᵀ (or Mᵀ M) serves all of them.
    """
    side, device = min(matrices[0].shape), matrices[0].device
    grams = torch.empty(len(matrices), side, side, dtype=torch.float64, device=device)

    def gram(i):
        m = stacked([matrices[j].detach() for j in i]).double()  # (g, r, k) or (g, d, r)
        grams[i] = m @ m.mT if m.shape[1] <= m.shape[2] else m.mT @ m

    on_every_core(gram, alike([m.shape for m in matrices], [m.numel() for m in matrices], device), device)
    parts = grams.split(8 if device.type == "cpu" else len(grams))
    squares, vectors = zip(*on_every_core(torch.linalg.eigh, parts, device), strict=True)  # ascending
    return torch.cat(squares).flip(-1).clamp_min(0).sqrt(), torch.cat(vectors).flip(-1)


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

    lora_A (…, r, k), lora_B (…, d, r) → U (…, d, r), D (…, r) descending, Vh (…, r, k), float64.
    With r above min(d, k) the inner size is that smaller side.
    """
    q_b, r_b = torch.linalg.qr(lora_B.detach().double())  # (…, d, r), (…, r, r)
    q_a, r_a = torch.linalg.qr(lora_A.detach().double().mT)  # (…, k, r), (…, r, r)
    u, d, vh = torch.linalg.svd(r_b @ r_a.mT, full_matrices=False)
    return q_b @ u, d, vh @ q_a.mT


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

"""Singular values of LoRA factors and of their product, and the ranks and energies derived from them.

The square of a singular value is its energy. Everything is computed in float64: in float32 the error of a Gram
matrix's small singular values is far larger than the values themselves.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

MAX_STACK_ENTRIES = 2**26  # numbers in one stack of matrices: half a GiB in float64
MAX_STACK_ENTRIES_CPU = 2**18  # a stack of this size stays in a processor's cache


def equal_stacks(keys: Sequence[Hashable], entries: Sequence[int], device: torch.device) -> Iterator[list[int]]:
    """Positions of equal keys, grouped into stacks that can be computed at once within the limits on memory.

    `entries` tells how many numbers each position stands for. A stack has at least one position.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    limit = MAX_STACK_ENTRIES_CPU if device.type == "cpu" else MAX_STACK_ENTRIES
    for group in groups.values():
        size = max(1, limit // max(1, entries[group[0]]))
        yield from (group[i : i + size] for i in range(0, len(group), size))


def stacked(matrices: list[Tensor]) -> Tensor:
    """Matrices of one shape as (g, …); a single matrix is not copied."""
    return matrices[0][None] if len(matrices) == 1 else torch.stack(matrices)


def on_every_core(work: Callable, parts: Iterable, device: torch.device) -> list:
    """`work(part)` for each of the parts, in order, without gradients; on a CPU each core takes the next part.

    With two threads LAPACK takes several times as long for the eigenvalues of a small matrix as with one.
    """

    @torch.no_grad()
    def work_without_gradients(part):
        return work(part)

    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return [work_without_gradients(part) for part in parts]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work_without_gradients, parts))
    finally:
        torch.set_num_threads(threads)


def gram_eig(matrices: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Singular values and short-side singular vectors of n matrices whose short side is r.

    Takes matrices of r × k or d × r (the short side is the smaller one); returns values (n, r), descending, and
    vectors (n, r, r), one in each column, both float64. One batched eigendecomposition of M Mᵀ (or Mᵀ M) serves all
    matrices.
    """
    side, device = min(matrices[0].shape), matrices[0].device
    grams = torch.empty(len(matrices), side, side, dtype=torch.float64, device=device)

    def fill(stack):
        m = stacked([matrices[i].detach() for i in stack]).double()  # (g, r, k) or (g, d, r)
        grams[stack] = m @ m.mT if m.shape[1] <= m.shape[2] else m.mT @ m

    stacks = equal_stacks([m.shape for m in matrices], [m.numel() for m in matrices], device)
    on_every_core(fill, stacks, device)
    parts = grams.split(8 if device.type == "cpu" else len(grams))
    squares, vectors = zip(*on_every_core(torch.linalg.eigh, parts, device), strict=True)  # ascending
    return torch.cat(squares).flip(-1).clamp_min(0).sqrt(), torch.cat(vectors).flip(-1)


def signal_index(values: Tensor, p: float) -> Tensor:
    """The signal index I_M: how many leading singular values together stay strictly below the share p of the energy.

    `values` (…, r), descending; returns integers (…). It is 0 where the first value alone reaches p, and for a matrix
    of zeros. AC-LoRA (arXiv 2504.02231), section 3.
    """
    energy = values.double().square()
    return (energy.cumsum(-1) < p * energy.sum(-1, keepdim=True)).sum(-1)


def rank_for_energy(values: Tensor, p: float) -> int:
    """The smallest rank, at least 1, whose leading values hold the share p of the energy; `values` (r,)."""
    energy = values.double().square()
    return int((energy.cumsum(-1) < p * energy.sum()).sum().clamp(0, len(values) - 1)) + 1


def kept_energy(values: Tensor, rank: int) -> float:
    """The share of the energy in the `rank` leading values (r,); 1 for a matrix of zeros."""
    energy = values.double().square()
    total = energy.sum().item()
    return energy[:rank].sum().item() / total if total > 0 else 1.0


def product_svd(lora_A: Tensor, lora_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compact SVD of B A by QR of the factors, without forming the d × k product.

    lora_A (…, r, k), lora_B (…, d, r) → U (…, d, r), D (…, r) descending, Vh (…, r, k), float64. Where r exceeds
    min(d, k), that smaller side takes its place.
    """
    q_b, r_b = torch.linalg.qr(lora_B.detach().double())  # (…, d, r), (…, r, r)
    q_a, r_a = torch.linalg.qr(lora_A.detach().double().mT)  # (…, k, r), (…, r, r)
    u, d, vh = torch.linalg.svd(r_b @ r_a.mT, full_matrices=False)
    return q_b @ u, d, vh @ q_a.mT


def truncate(lora_A: Tensor, lora_B: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The best approximation of B A at `rank`, as balanced factors, and its relative error.

    Returns lora_A (rank, k) and lora_B (d, rank) in the inputs' dtypes, and ‖B A − B' A'‖ / ‖B A‖ (Frobenius; 0 for a
    product of zeros).
    """
    u, d, vh = product_svd(lora_A, lora_B)
    root = d[:rank].sqrt()
    error = (1 - kept_energy(d, rank)) ** 0.5 if d.square().sum() > 0 else 0.0
    a, b = root[:, None] * vh[:rank], u[:, :rank] * root
    return a.to(lora_A.dtype).contiguous(), b.to(lora_B.dtype).contiguous(), max(0.0, error)

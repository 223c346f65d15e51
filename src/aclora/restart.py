"""RESTART: keep a LoRA matrix's signal, put Gaussian noise in the place of the rest.

AC-LoRA, arXiv 2504.02231. Tensors in, tensors and a record out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from aclora.spectra import gram_eig, kept_energy, signal_index

Factors = dict[str, tuple[Tensor, Tensor]]  # layer → lora_A (r, k), lora_B (d, r)


@dataclass(frozen=True)
class Restart:
    """What one RESTART did: new factors, and per layer, for A and for B, what led to them."""

    factors: Factors
    index: int  # I, the unified signal index
    signal_index: Tensor  # (layers, 2) I_M of A and of B, −1 for a matrix of zeros
    values: Tensor  # (layers, 2, r) singular values before
    kept: Tensor  # (layers, 2) share of the energy kept
    sigma: Tensor  # (layers, 2) standard deviation of the noise
    norm_ratio: Tensor  # (layers, 2) ‖M'‖ / ‖M‖
    bases: dict[str, tuple[Tensor, Tensor]]  # layer → orthonormal (r, I) of A's and B's short side


def threshold(loss: float, alpha: float, epoch: int, epochs: int) -> float:
    """p = 1 − l^α_e with α_e = alpha · (1 + epoch / epochs), the loss clamped into (0, 1).

    `epoch` counts from 1. AC-LoRA, section 3.3.
    """
    inside = min(max(loss, 1e-6), 1 - 1e-6)
    return 1 - inside ** (alpha * (1 + epoch / epochs))


@torch.no_grad()
def restart(factors: Factors, p: float, generator: torch.Generator) -> Restart:
    """Apply RESTART at threshold `p` to both factors of every layer; all layers share one rank r.

    I is the largest I_M, at least 1. A matrix keeps its part S in the I leading singular
    directions and receives noise of variance Var(M − S); a matrix of zeros is left as it is.
    The noise is drawn on the CPU from `generator`, layer by layer, A before B, so that a seed
    gives the same noise on every device.
    """
    flat = [m for pair in factors.values() for m in pair]
    values, vectors = gram_eig(flat)  # (2n, r), (2n, r, r)
    alive = values[:, 0] > 0
    each = torch.where(alive, signal_index(values, p), -1)
    index = max(1, int(each.max()))
    new, kept, sigma, ratio, bases = [], [], [], [], []
    for m, d, u, live in zip(flat, values, vectors, alive, strict=True):
        base = u[:, :index]  # (r, I)
        bases.append(base)
        kept.append(kept_energy(d, index))
        if not live:
            new.append(m.clone())
            sigma.append(0.0)
            ratio.append(1.0)
            continue
        wide = m.double()
        signal = base @ (base.T @ wide) if m.shape[0] <= m.shape[1] else (wide @ base) @ base.T
        std = (wide - signal).var(correction=0).sqrt()
        noise = torch.randn(m.shape, generator=generator, dtype=torch.float32).to(wide)
        made = signal + std * noise
        new.append(made.to(m.dtype))
        sigma.append(std.item())
        ratio.append((made.norm() / wide.norm()).item())
    pairs = list(zip(new[::2], new[1::2], strict=True))
    return Restart(
        factors=dict(zip(factors, pairs, strict=True)),
        index=index,
        signal_index=each.view(-1, 2).cpu(),
        values=values.view(len(pairs), 2, -1).cpu(),
        kept=torch.tensor(kept).view(-1, 2),
        sigma=torch.tensor(sigma).view(-1, 2),
        norm_ratio=torch.tensor(ratio).view(-1, 2),
        bases=dict(zip(factors, zip(bases[::2], bases[1::2], strict=True), strict=True)),
    )

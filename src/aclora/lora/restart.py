"""RESTART: keep a LoRA adapter's signal, put something new in the place of the rest.

AC-LoRA, arXiv 2504.02231. Tensors in, tensors and a record out. Two spectra can tell signal from rest: that of each
factor by itself (`on="factors"`, the paper's), or that of ΔW = B A (`on="product"`, ours), which does not change when
the same ΔW is written with other factors.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from aclora.lora.spectra import alike, gram_eig, kept_energy, on_every_core, product_svd, signal_index, stacked

Factors = dict[str, tuple[Tensor, Tensor]]  # layer → lora_A (r, k), lora_B (d, r)
NEGLIGIBLE = 1e-12  # relative to the largest singular value: nothing that float64 factors could mean


@dataclass(frozen=True)
class Restart:
    """What one RESTART did: new factors, and per layer, for A and for B, what led to them.

    On the product there is one spectrum a layer: `signal_index`, `used`, `values`, `kept` and `norm_ratio` are ΔW's
    and stand there twice. `sigma` is that of the entries put into the freed rows of A and columns of B.
    """

    factors: Factors
    index: int  # I, the unified signal index; where each has its own, the largest used
    signal_index: Tensor  # (layers, 2) I_M of A and of B, −1 for a matrix of zeros
    used: Tensor  # (layers, 2) what I_M became: unified, within floor and ceiling
    values: Tensor  # (layers, 2, r) singular values before; zeros follow where a layer's rank is below r
    kept: Tensor  # (layers, 2) share of the energy kept
    sigma: Tensor  # (layers, 2) standard deviation of the noise
    norm_ratio: Tensor  # (layers, 2) ‖M'‖ / ‖M‖
    bases: dict[str, tuple[Tensor, Tensor]]  # layer → (r, I) for A and for B: what `carry_moments` needs
    on: str


def threshold(loss: float, alpha: float, epoch: int, epochs: int) -> float:
    """p = 1 − l^α_e with α_e = alpha · (1 + epoch / epochs), the loss clamped into (0, 1).

    `epoch` counts from 1. AC-LoRA, section 3.3.
    """
    inside = min(max(loss, 1e-6), 1 - 1e-6)
    return 1 - inside ** (alpha * (1 + epoch / epochs))


@torch.no_grad()
def restart(
    factors: Factors,
    p: float,
    generator: torch.Generator,
    *,
    on: Literal["factors", "product"] = "factors",
    noise: Literal["gaussian", "zero", "structured"] = "gaussian",
    refill: Literal["init", "noise"] = "init",
    unify: Literal["max", "mean", "none"] = "max",
    floor: int = 1,
    ceiling: int | None = None,
) -> Restart:
    """Apply RESTART at threshold `p` to the adapters of all layers, whose ranks may differ.

    I is the largest I_M, or their rounded mean, or each matrix has its own; never below `floor`, above `ceiling` or
    above a matrix's own rank. What is zero is left as it is. Random numbers are drawn on the CPU from `generator`,
    layer by layer, A before B, so that a seed gives the same ones on every device.

    On the factors each matrix M keeps its part S in the I leading singular directions and N comes in the place of
    M − S, by `noise`. gaussian: i.i.d. of variance Var(M − S), the paper's. zero: nothing. structured: the singular
    values of M − S with new singular vectors, on both sides uniformly random among the orthonormal ones orthogonal to
    those of S, so that M' has the singular values of M.

    On the product ΔW = U D Vᵀ keeps its I leading components in balanced factors, B' = U √D and A' = √D Vᵀ, and the
    freed rank is filled by `refill`. init: A Gaussian of std 1 / r, B zero, so that ΔW' is the signal. noise: both
    Gaussian with variance σ² where d (r − I) k σ⁴ = Σ_{i>I} d_i², the energy that ΔW lost.
    """
    how = (unify, floor, ceiling)
    if on == "product":
        return _on_product(factors, p, generator, refill, how)
    return _on_factors(factors, p, generator, noise, how)


def _on_factors(factors, p, generator, noise, how):
    flat = [m for pair in factors.values() for m in pair]
    values, vectors = _spectra(flat)
    own = torch.where(values[:, 0] > 0, signal_index(values, p), -1)
    used = _unified(own, [min(m.shape) for m in flat], *how)
    live = [i for i, index in enumerate(own.tolist()) if index >= 0]
    drawn = {}
    new = [m.clone() if index < 0 else m for m, index in zip(flat, own.tolist(), strict=True)]
    sigma, ratio = torch.zeros(len(flat)), torch.ones(len(flat))
    shapes, entries = [(flat[i].shape, used[i]) for i in live], [flat[i].numel() for i in live]

    def stacks():  # drawn in the matrices' order while earlier ones are already worked on
        begun = 0
        for stack in sorted(alike(shapes, entries, flat[0].device), key=max):
            for i in live[begun : stack[-1] + 1]:
                drawn[i] = _draw(noise, flat[i].shape, used[i], generator)
            begun = stack[-1] + 1
            yield [live[j] for j in stack]

    def renew(at):
        wide = stacked([flat[i] for i in at]).double()  # (g, r, k) or (g, d, r)
        u = stacked([vectors[i] for i in at])  # (g, r, r)
        base = u[..., : used[at[0]]]  # (g, r, I)
        signal = _projected(wide, base)
        # one by one: a batched variance sums in another order
        std = torch.stack([m.var(correction=0) for m in wide - signal]).sqrt()  # (g,)
        if noise == "zero":
            made, std = signal, torch.zeros_like(std)
        elif noise == "gaussian":
            made = stacked([drawn.pop(i) for i in at]).to(wide).mul_(std[:, None, None]).add_(signal)
        else:
            d = torch.stack([values[i, : u.shape[-1]] for i in at]).to(u)  # (g, r)
            turn, frame = (torch.stack(z).to(u) for z in zip(*(drawn.pop(i) for i in at), strict=True))
            made = _rotated(wide, u, d, used[at[0]], turn, frame).add_(signal)
        after, before = (torch.linalg.vector_norm(m, dim=(1, 2)) for m in (made, wide))  # (g,) each
        ratio[at], sigma[at] = (after / before).cpu().float(), std.cpu().float()
        for i, m in zip(at, made, strict=True):
            new[i] = m.to(flat[i].dtype, copy=True)

    on_every_core(renew, stacks(), flat[0].device)
    bases = [u[:, :index] for u, index in zip(vectors, used, strict=True)]
    kept = [kept_energy(d, index) for d, index in zip(values, used, strict=True)]
    return Restart(
        factors=dict(zip(factors, zip(new[::2], new[1::2], strict=True), strict=True)),
        index=max(used),
        signal_index=own.view(-1, 2),
        used=torch.tensor(used).view(-1, 2),
        values=values.view(len(factors), 2, -1),
        kept=torch.tensor(kept).view(-1, 2),
        sigma=sigma.view(-1, 2),
        norm_ratio=ratio.view(-1, 2),
        bases=dict(zip(factors, zip(bases[::2], bases[1::2], strict=True), strict=True)),
        on="factors",
    )


def _on_product(factors, p, generator, refill, how):
    pairs = list(factors.values())
    values = torch.zeros(len(pairs), max(a.shape[0] for a, _ in pairs), dtype=torch.float64)
    parts = [()] * len(pairs)
    shapes, entries = [(a.shape, b.shape) for a, b in pairs], [a.numel() + b.numel() for a, b in pairs]
    for at in alike(shapes, entries, pairs[0][0].device):
        u, d, vh = product_svd(*(torch.stack([pairs[i][x] for i in at]) for x in (0, 1)))
        values[at, : d.shape[-1]] = d.cpu()
        for i, *part in zip(at, u, d, vh, strict=True):
            parts[i] = part
    own = torch.where(values[:, 0] > 0, signal_index(values, p), -1)
    # directions of no length cannot be balanced; they are refilled
    solid = (values > NEGLIGIBLE * values[:, :1]).sum(1).tolist()
    used = _unified(own, solid, *how)
    new, sigma, ratio, bases = [], [], [], []
    for (a, b), (u, d, vh), index, own_values in zip(pairs, parts, used, values, strict=True):
        rank, freed = a.shape[0], a.shape[0] - index
        if not own_values[0] > 0:
            new.append((a.clone(), b.clone()))
            sigma.append((0.0, 0.0))
            ratio.append(torch.ones(()))
            bases.append((torch.eye(rank).to(d), torch.eye(rank).to(d)))
            continue
        lost = own_values[index:].square().sum().item()
        same = (lost / (b.shape[0] * max(1, freed) * a.shape[1])) ** 0.25  # d (r − I) k σ⁴ = lost
        sigma.append((1 / rank, 0.0) if refill == "init" else (same, same))
        up = sigma[-1][0] * _normal(freed, a.shape[1], generator=generator).to(d)  # (r − I, k)
        down = torch.zeros(b.shape[0], freed).to(d)
        if refill == "noise":
            down = same * _normal(b.shape[0], freed, generator=generator).to(d)
        root = d[:index].sqrt()
        up = torch.cat([root[:, None] * vh[:index], up])  # (r, k)
        down = torch.cat([u[:, :index] * root, down], 1)  # (d, r)
        ratio.append((((up @ up.T) * (down.T @ down)).sum().sqrt() / d.norm()).float())
        new.append((up.to(a.dtype), down.to(b.dtype)))
        # A' = √D Vᵀ = baseᵀ A for B's base, B' = U √D = B base for A's: gradients of the new from those of the old
        bases.append((a.double() @ vh[:index].T / root, b.double().T @ u[:, :index] / root))
    kept = torch.tensor([kept_energy(d, index) for d, index in zip(values, used, strict=True)])
    return Restart(
        factors=dict(zip(factors, new, strict=True)),
        index=max(used),
        signal_index=_twice(own),
        used=_twice(torch.tensor(used)),
        values=_twice(values),
        kept=_twice(kept),
        sigma=torch.tensor(sigma),
        norm_ratio=_twice(torch.stack(ratio).cpu()),
        bases=dict(zip(factors, bases, strict=True)),
        on="product",
    )


@torch.no_grad()
def carry_moments(
    optimizer: torch.optim.Optimizer,
    layers: dict[str, tuple[Tensor, Tensor]],
    done: Restart,
    how: Literal["keep", "reset", "project"],
) -> None:
    """What becomes of Adam's moments of `layers` (its parameters lora_A and lora_B), which belong to the old matrices.

    keep: they stay. reset: they and the count of steps start from zero. project: on the factors the first moment keeps
    its part in the I kept directions, the second stays. On the product the kept rows of A' (columns of B') are
    combinations of the old ones, and so are their gradients: with A's base Y, dL/dA' = Yᵀ dL/dA. The first moment goes
    the same way, exactly; the second by the squares of Y, as if the rows' gradients were uncorrelated. The freed rows
    start with a first moment of zero and the kept ones' mean second, so that their first steps are no longer.
    """
    for name, pair in layers.items():
        for x, (parameter, base) in enumerate(zip(pair, done.bases[name], strict=True)):
            state = optimizer.state.get(parameter)
            if not state or how == "keep":
                continue
            if how == "reset":
                for moment in ("exp_avg", "exp_avg_sq", "step"):
                    state[moment].zero_()
                continue
            mean, square = (state[key].flatten(1) for key in ("exp_avg", "exp_avg_sq"))  # a convolution's has four axes
            base = base.to(mean)  # (r, I)
            if done.on == "factors":
                mean = _projected(mean, base)
            else:
                mean, square = (m.T if x else m for m in (mean, square))  # the rank first
                freed = len(mean) - base.shape[1]
                first, second = base.T @ mean, base.square().T @ square
                mean = torch.cat([first, torch.zeros_like(mean[:freed])])
                square = torch.cat([second, second.mean(0, keepdim=True).expand(freed, -1)])
                mean, square = (m.T if x else m for m in (mean, square))
            state["exp_avg"].copy_(mean.reshape(parameter.shape))
            state["exp_avg_sq"].copy_(square.reshape(parameter.shape))


def _spectra(flat):
    """Singular values (n, r), on the CPU and filled up with zeros, and each matrix's short-side vectors."""
    sides = [min(m.shape) for m in flat]
    values, vectors = torch.zeros(len(flat), max(sides), dtype=torch.float64), [None] * len(flat)
    for side in dict.fromkeys(sides):
        at = [i for i, s in enumerate(sides) if s == side]
        d, u = gram_eig([flat[i] for i in at])  # (n, r), (n, r, r)
        values[at, :side] = d.cpu()
        for i, each in zip(at, u, strict=True):
            vectors[i] = each
    return values, vectors


def _unified(own, sides, unify, floor, ceiling):
    """How many directions each matrix keeps, from its own I_M (−1: a matrix of zeros has no say)."""
    have = own[own >= 0]
    if unify != "none" and len(have):
        one = have.max() if unify == "max" else (have.double().mean() + 0.5).floor()
        own = torch.full_like(own, int(one))
    return [min(side, ceiling or side, max(floor, index)) for index, side in zip(own.tolist(), sides, strict=True)]


def _draw(noise, shape, index, generator):
    """The random numbers of one matrix, float32 on the CPU."""
    if noise == "gaussian":
        return _normal(*shape, generator=generator)
    if noise == "structured":
        side, length = sorted(shape)
        free = side - index
        return _normal(free, free, generator=generator), _normal(length, free, generator=generator)
    return None


def _normal(*shape, generator):
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def _projected(m, base):
    """The part of m (…, r, k) or (…, d, r) in the directions of base (…, r, I), in the fewer multiplications."""
    if 2 * base.shape[-1] > base.shape[-2]:
        whole = base @ base.mT  # (…, r, r)
        return whole @ m if _lies(m) else m @ whole
    return base @ (base.mT @ m) if _lies(m) else (m @ base) @ base.mT


def _rotated(wide, u, d, index, turn, frame):
    """The discarded part with its singular values and other singular vectors, orthogonal to the signal's.

    wide (g, r, k) or (g, d, r), u (g, r, r), d (g, r); turn (g, r − I, r − I) and frame (g, long side, r − I) are
    Gaussian.
    """
    long = wide.mT if _lies(wide) else wide  # (g, long side, r)
    short = u[..., index:] @ _orthonormal(turn)  # (g, r, r − I)
    frame = _orthonormal(torch.cat([long @ u[..., :index], frame], -1))[..., index:]  # (g, long side, r − I)
    out = (short * d[..., None, index:]) @ frame.mT
    return out if _lies(wide) else out.mT


def _orthonormal(m):
    """Gram-Schmidt of the columns; of Gaussian ones uniformly random, as QR's signs are fixed."""
    q, r = torch.linalg.qr(m)
    return q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q)[..., None, :]


def _lies(m):
    """Is the short side, the rank, that of the rows?"""
    return m.shape[-2] <= m.shape[-1]


def _twice(x):
    """The product's one figure for both factors, (layers, …) → (layers, 2, …)."""
    return torch.stack([x, x], 1)

"""RESTART: keep the signal in a LoRA adapter and replace the rest.

AC-LoRA, arXiv 2504.02231. Takes tensors, returns tensors and a record. Two spectra can separate the signal from the
rest: that of each factor (`on="factors"`, the paper's), or that of ΔW = B A (`on="product"`, ours), which does not
depend on how ΔW is factored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from aclora.lora.spectra import equal_stacks, gram_eig, kept_energy, on_every_core, product_svd, signal_index, stacked

Factors = dict[str, tuple[Tensor, Tensor]]  # layer → lora_A (r, k), lora_B (d, r)
NEGLIGIBLE = 1e-12  # relative to the largest singular value; float64 factors cannot represent less


@dataclass(frozen=True)
class Restart:
    """What one RESTART did: the new factors and, per layer for A and for B, the figures behind them.

    On the product all but `sigma` are figures of ΔW, repeated for A and for B.
    """

    factors: Factors
    index: int  # I, the unified signal index; with unify="none" the largest index used
    signal_index: Tensor  # (layers, 2) I_M of A and of B; −1 for a matrix of zeros
    used: Tensor  # (layers, 2) directions kept: I_M after unifying, within floor and ceiling
    values: Tensor  # (layers, 2, r) singular values before; padded with zeros where a layer's rank is below r
    kept: Tensor  # (layers, 2) share of the energy kept
    sigma: (
        Tensor  # (layers, 2) standard deviation of the noise; on the product, in the freed rows of A and columns of B
    )
    norm_ratio: Tensor  # (layers, 2) ‖M'‖ / ‖M‖
    bases: dict[str, tuple[Tensor, Tensor]]  # layer → (r, I) for A and for B, used by `carry_moments`
    on: str


def threshold(loss: float, alpha: float, epoch: int, epochs: int) -> float:
    """The threshold p = 1 − l^α_e with α_e = alpha · (1 + epoch / epochs); the loss l is clamped into (0, 1).

    `epoch` counts from 1. AC-LoRA, section 3.3.
    """
    clamped = min(max(loss, 1e-6), 1 - 1e-6)
    return 1 - clamped ** (alpha * (1 + epoch / epochs))


@torch.no_grad()
def restart(
    factors: Mapping[str, tuple[Tensor, Tensor]],
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
    """Apply RESTART at threshold `p` to the LoRA factors of all layers; their ranks may differ.

    `factors` maps each layer to lora_A (r, k) and lora_B (d, r); they are not changed. I is the largest I_M
    (unify="max") or the rounded mean; with "none" each matrix keeps its own. It is never below `floor` nor above
    `ceiling` or a matrix's rank. Matrices of zeros stay as they are. Random numbers are drawn on the CPU from
    `generator`, layer by layer, A before B, so that a seed gives the same numbers on every device.

    on="factors": each matrix M keeps its part S in the I leading singular directions, and `noise` replaces M − S.
    "gaussian": i.i.d. with variance Var(M − S), the paper's. "zero": none. "structured": the singular values of M − S
    with new singular vectors, uniformly random among those orthogonal to S, so that M' has the singular values of M.

    on="product": ΔW = U D Vᵀ keeps its I leading components as balanced factors, B' = U √D and A' = √D Vᵀ. `refill`
    fills the freed rank. "init": A Gaussian with standard deviation 1 / r, B zero, so that ΔW' is the signal. "noise":
    both Gaussian with variance σ², where d (r − I) k σ⁴ = Σ_{i>I} d_i², the energy that ΔW lost.
    """
    if on == "product":
        return _restart_product(factors, p, generator, refill, (unify, floor, ceiling))
    return _restart_factors(factors, p, generator, noise, (unify, floor, ceiling))


def _restart_factors(factors, p, generator, noise, limits):
    matrices = [m for pair in factors.values() for m in pair]
    device = matrices[0].device
    values, vectors = _spectra(matrices)
    own = torch.where(values[:, 0] > 0, signal_index(values, p), -1)
    used = _directions_to_keep(own, [min(m.shape) for m in matrices], *limits)
    nonzero = [i for i, index in enumerate(own.tolist()) if index >= 0]
    drawn = {}
    new = [m.clone() if index < 0 else m for m, index in zip(matrices, own.tolist(), strict=True)]
    sigma, norm_ratio = torch.zeros(len(matrices)), torch.ones(len(matrices))
    shapes, entries = [(matrices[i].shape, used[i]) for i in nonzero], [matrices[i].numel() for i in nonzero]

    def stacks():  # noise is drawn in the order of the matrices while workers already process earlier stacks
        next_to_draw = 0
        for stack in sorted(equal_stacks(shapes, entries, device), key=max):
            for i in nonzero[next_to_draw : stack[-1] + 1]:
                drawn[i] = _draw_noise(noise, matrices[i].shape, used[i], generator)
            next_to_draw = stack[-1] + 1
            yield [nonzero[j] for j in stack]

    def renew(stack):
        old = stacked([matrices[i] for i in stack]).double()  # (g, r, k) or (g, d, r)
        u = stacked([vectors[i] for i in stack])  # (g, r, r)
        index = used[stack[0]]
        signal = _project(old, u[..., :index])
        # one by one, because a batched variance sums in another order
        std = torch.stack([m.var(correction=0) for m in old - signal]).sqrt()  # (g,)
        if noise == "zero":
            renewed, std = signal, torch.zeros_like(std)
        elif noise == "gaussian":
            renewed = stacked([drawn.pop(i) for i in stack]).to(old).mul_(std[:, None, None]).add_(signal)
        else:
            d = torch.stack([values[i, : u.shape[-1]] for i in stack]).to(u)  # (g, r)
            rotation, frame = (torch.stack(z).to(u) for z in zip(*(drawn.pop(i) for i in stack), strict=True))
            renewed = _rest_in_random_directions(old, u, d, index, rotation, frame).add_(signal)
        after, before = (torch.linalg.vector_norm(m, dim=(1, 2)) for m in (renewed, old))  # (g,) each
        norm_ratio[stack], sigma[stack] = (after / before).cpu().float(), std.cpu().float()
        for i, m in zip(stack, renewed, strict=True):
            new[i] = m.to(matrices[i].dtype, copy=True)

    on_every_core(renew, stacks(), device)
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
        norm_ratio=norm_ratio.view(-1, 2),
        bases=dict(zip(factors, zip(bases[::2], bases[1::2], strict=True), strict=True)),
        on="factors",
    )


def _restart_product(factors, p, generator, refill, limits):
    pairs = list(factors.values())
    values = torch.zeros(len(pairs), max(a.shape[0] for a, _ in pairs), dtype=torch.float64)
    svds = {}
    shapes, entries = [(a.shape, b.shape) for a, b in pairs], [a.numel() + b.numel() for a, b in pairs]
    for stack in equal_stacks(shapes, entries, pairs[0][0].device):
        u, d, vh = product_svd(*(torch.stack([pairs[i][side] for i in stack]) for side in (0, 1)))
        values[stack, : d.shape[-1]] = d.cpu()
        svds |= zip(stack, zip(u, d, vh, strict=True), strict=True)
    own = torch.where(values[:, 0] > 0, signal_index(values, p), -1)
    ranks = (values > NEGLIGIBLE * values[:, :1]).sum(1).tolist()  # a direction of no length cannot be balanced
    used = _directions_to_keep(own, ranks, *limits)
    new, sigma, norm_ratio, bases = [], [], [], []
    for i, ((a, b), index) in enumerate(zip(pairs, used, strict=True)):
        u, d, vh = svds[i]
        rank, freed = a.shape[0], a.shape[0] - index
        if not values[i, 0] > 0:
            new.append((a.clone(), b.clone()))
            sigma.append((0.0, 0.0))
            norm_ratio.append(torch.ones(()))
            bases.append((torch.eye(rank).to(d), torch.eye(rank).to(d)))
            continue
        lost = values[i, index:].square().sum().item()
        std = (lost / (b.shape[0] * max(1, freed) * a.shape[1])) ** 0.25  # d (r − I) k σ⁴ = lost
        sigma.append((1 / rank, 0.0) if refill == "init" else (std, std))
        noise_a = sigma[-1][0] * _normal(freed, a.shape[1], generator=generator).to(d)  # (r − I, k)
        noise_b = d.new_zeros(b.shape[0], freed)
        if refill == "noise":
            noise_b = std * _normal(b.shape[0], freed, generator=generator).to(d)
        root = d[:index].sqrt()
        new_a = torch.cat([root[:, None] * vh[:index], noise_a])  # (r, k)
        new_b = torch.cat([u[:, :index] * root, noise_b], 1)  # (d, r)
        norm_ratio.append((((new_a @ new_a.T) * (new_b.T @ new_b)).sum().sqrt() / d.norm()).float())
        new.append((new_a.to(a.dtype), new_b.to(b.dtype)))
        # A' = √D Vᵀ = baseᵀ A with B's base, B' = U √D = B base with A's: the new gradients follow from the old ones
        bases.append((a.double() @ vh[:index].T / root, b.double().T @ u[:, :index] / root))
    kept = torch.tensor([kept_energy(d, index) for d, index in zip(values, used, strict=True)])
    return Restart(
        factors=dict(zip(factors, new, strict=True)),
        index=max(used),
        signal_index=_for_both_factors(own),
        used=_for_both_factors(torch.tensor(used)),
        values=_for_both_factors(values),
        kept=_for_both_factors(kept),
        sigma=torch.tensor(sigma),
        norm_ratio=_for_both_factors(torch.stack(norm_ratio).cpu()),
        bases=dict(zip(factors, bases, strict=True)),
        on="product",
    )


@torch.no_grad()
def carry_moments(
    optimizer: torch.optim.Optimizer,
    layers: Mapping[str, tuple[Tensor, Tensor]],
    done: Restart,
    how: Literal["keep", "reset", "project"],
) -> None:
    """Adjust the Adam moments of `layers` (parameters lora_A and lora_B) to the factors that RESTART made.

    keep: they stay. reset: they and the count of steps start from zero. project, on the factors: the first moment keeps
    its part in the I kept directions, the second stays. project, on the product: the kept rows of A' (columns of B')
    are combinations of the old ones, and so are their gradients: with A's base Y, dL/dA' = Yᵀ dL/dA. The first moment
    changes in the same way, exactly; the second by the squares of Y, as if the rows' gradients were uncorrelated. The
    freed rows start with a first moment of zero and the kept ones' mean second moment, which bounds their first steps.
    """
    for name, pair in layers.items():
        for is_b, (parameter, base) in enumerate(zip(pair, done.bases[name], strict=True)):
            state = optimizer.state.get(parameter)
            if not state or how == "keep":
                continue
            if how == "reset":
                for moment in ("exp_avg", "exp_avg_sq", "step"):
                    state[moment].zero_()
                continue
            mean, square = (state[key].flatten(1) for key in ("exp_avg", "exp_avg_sq"))  # a convolution has four axes
            base = base.to(mean)  # (r, I)
            if done.on == "factors":
                mean = _project(mean, base)
            else:
                mean, square = (m.T if is_b else m for m in (mean, square))  # (r, …)
                freed = len(mean) - base.shape[1]
                first, second = base.T @ mean, base.square().T @ square
                mean = torch.cat([first, torch.zeros_like(mean[:freed])])
                square = torch.cat([second, second.mean(0, keepdim=True).expand(freed, -1)])
                mean, square = (m.T if is_b else m for m in (mean, square))
            state["exp_avg"].copy_(mean.reshape(parameter.shape))
            state["exp_avg_sq"].copy_(square.reshape(parameter.shape))


def _spectra(matrices):
    """Singular values (n, r), on the CPU and padded with zeros, and each matrix's short-side vectors."""
    sides = [min(m.shape) for m in matrices]
    values, vectors = torch.zeros(len(matrices), max(sides), dtype=torch.float64), {}
    for side in dict.fromkeys(sides):
        of_side = [i for i, s in enumerate(sides) if s == side]
        d, u = gram_eig([matrices[i] for i in of_side])  # (n, r), (n, r, r)
        values[of_side, :side] = d.cpu()
        vectors |= zip(of_side, u, strict=True)
    return values, [vectors[i] for i in range(len(matrices))]


def _directions_to_keep(own, ranks, unify, floor, ceiling):
    """How many directions each matrix keeps, given its own I_M; matrices of zeros (−1) do not influence the others."""
    known = own[own >= 0]
    if unify != "none" and len(known):
        shared = known.max() if unify == "max" else (known.double().mean() + 0.5).floor()
        own = torch.full_like(own, int(shared))
    return [min(rank, ceiling or rank, max(floor, index)) for index, rank in zip(own.tolist(), ranks, strict=True)]


def _draw_noise(noise, shape, index, generator):
    """The random numbers for one matrix, float32 on the CPU."""
    if noise == "gaussian":
        return _normal(*shape, generator=generator)
    if noise == "structured":
        rank, length = sorted(shape)
        freed = rank - index
        return _normal(freed, freed, generator=generator), _normal(length, freed, generator=generator)
    return None


def _normal(*shape, generator):
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def _project(m, base):
    """The part of m (…, r, k) or (…, d, r) in the directions of base (…, r, I), in the fewer multiplications."""
    if 2 * base.shape[-1] > base.shape[-2]:
        projector = base @ base.mT  # (…, r, r)
        return projector @ m if _rank_is_first(m) else m @ projector
    return base @ (base.mT @ m) if _rank_is_first(m) else (m @ base) @ base.mT


def _rest_in_random_directions(old, u, d, index, rotation, frame):
    """The discarded part with its singular values but new singular vectors, orthogonal to those of the signal.

    old (g, r, k) or (g, d, r), u (g, r, r), d (g, r); Gaussian: rotation (g, r − I, r − I), frame (g, long side, r − I)
    """
    long = old.mT if _rank_is_first(old) else old  # (g, long side, r)
    short = u[..., index:] @ _orthonormal(rotation)  # (g, r, r − I)
    frame = _orthonormal(torch.cat([long @ u[..., :index], frame], -1))[..., index:]  # (g, long side, r − I)
    rest = (short * d[..., None, index:]) @ frame.mT
    return rest if _rank_is_first(old) else rest.mT


def _orthonormal(m):
    """Gram-Schmidt of the columns. QR's signs are fixed, so that Gaussian columns become uniformly random ones."""
    q, r = torch.linalg.qr(m)
    return q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q)[..., None, :]


def _rank_is_first(m):
    """Whether the rank is the number of rows, as in lora_A, and not of columns, as in lora_B."""
    return m.shape[-2] <= m.shape[-1]


def _for_both_factors(x):
    """Repeat the product's figure for A and for B: (layers, …) → (layers, 2, …)."""
    return torch.stack([x, x], 1)

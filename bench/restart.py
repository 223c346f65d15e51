"""Time of one RESTART at Stable Diffusion's layer shapes: ours, by torch.linalg.svd, and by a dense SVD of ΔW.

    python -m bench.restart [--device cuda] [--ranks 64 128]

Ours is `lora.restart.restart` on the factors. "svd" is the same operation with a `torch.linalg.svd` of each matrix
in its own float32, the noise drawn and the norms taken as ours does; "svd float64" with the precision that ours has.
"dense" is `torch.linalg.svd` of ΔW alone: one layer of each shape, extrapolated to all, with one thread. On a CPU the
two others too are measured on every n-th layer and multiplied: the column "of" says on how many. Each time is the
shortest of several. One thread and all of them are shown: small matrices do not always gain by more, and threads that
share their cores with other programs wait for each other.

The errors are those of singular values and of the signal S, the largest relative one over the measured layers,
against torch.linalg.svd in float64; in brackets the float32 rival's own.
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from aclora.lora.restart import Factors, restart
from aclora.lora.spectra import gram_eig, signal_index

P = 0.8
# Of the public configurations of runwayml/stable-diffusion-v1-5 and stabilityai/stable-diffusion-xl-base-1.0: widths
# of the levels, transformer blocks in each attention of a level (0: a level without), width of the text's embedding.
# Each level has two such attentions on the way down and three on the way up, and the middle has one, of the last width.
MODELS = {
    "SD 1.5": ((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 768),
    "SDXL": ((320, 640, 1280), (0, 2, 10), 10, 2048),
}


def layers(widths: tuple, depths: tuple, middle: int, text: int) -> list[tuple[int, int]]:
    """(d, k) of every attention layer: in each block q, k, v, out of the picture's and of the text's attention."""
    blocks = [width for width, depth in zip(widths, depths, strict=True) for _ in range((2 + 3) * depth)]
    blocks += [widths[-1]] * middle
    return [(w, k) for w in blocks for k in (w, w, w, w, w, text, text, w)]


def factors(shapes: list[tuple[int, int]], rank: int, device: torch.device) -> Factors:
    """Gaussian A as at the start and B of a falling spectrum, float32."""
    rng, out = torch.Generator().manual_seed(0), {}
    scale = torch.logspace(-1, -3, rank)
    for i, (d, k) in enumerate(shapes):
        a, b = torch.randn(rank, k, generator=rng) / rank, torch.randn(d, rank, generator=rng) * scale
        out[str(i)] = (a.to(device), b.to(device))
    return out


@torch.no_grad()
def by_svd(given: Factors, p: float, generator: torch.Generator, dtype: torch.dtype) -> tuple[Factors, Tensor, int]:
    """RESTART with an SVD of each matrix: new factors, singular values (n, r), I."""
    flat = [m for pair in given.values() for m in pair]
    parts = [torch.linalg.svd(m.to(dtype), full_matrices=False) for m in flat]
    values = torch.stack([d for _, d, _ in parts])
    index = max(1, int(signal_index(values, p).max()))
    new, report = [], []
    for m, (u, d, vh) in zip(flat, parts, strict=True):
        signal = (u[:, :index] * d[:index]) @ vh[:index]
        std = (m - signal).var(correction=0).sqrt()
        made = signal + std * torch.randn(m.shape, generator=generator).to(signal)
        new.append(made.to(m.dtype))
        report.append(torch.stack([std, made.norm() / m.norm()]))
    torch.stack(report).cpu()
    return dict(zip(given, zip(new[::2], new[1::2], strict=True), strict=True)), values, index


def signals(given: Factors, index: int, how: str) -> list[Tensor]:
    """S of every matrix by our Gram matrices or by an SVD in the precision named."""
    flat = [m for pair in given.values() for m in pair]
    if how == "ours":
        bases = gram_eig(flat)[1][..., :index]
        return [
            b @ (b.T @ m.double()) if m.shape[0] <= m.shape[1] else (m.double() @ b) @ b.T
            for m, b in zip(flat, bases, strict=True)
        ]
    parts = [torch.linalg.svd(m.to(getattr(torch, how)), full_matrices=False) for m in flat]
    return [((u[:, :index] * d[:index]) @ vh[:index]).double() for u, d, vh in parts]


def timed(what: Callable, device: torch.device, budget: float = 4.0) -> tuple[float, object]:
    """The shortest of at least two runs, of ten at most within `budget` seconds, and what came out."""
    best, spent, runs = float("inf"), 0.0, 0
    while runs < 2 or (spent < budget and runs < 10):
        start = time.perf_counter()
        out = what()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        best, spent, runs = min(best, seconds), spent + seconds, runs + 1
        if seconds > budget:
            break
    return best, out


def dense_seconds(shapes: list[tuple[int, int]], rank: int, device: torch.device) -> float:
    """Seconds of an SVD of every ΔW: one layer of each shape, times how often it occurs."""
    total = 0.0
    for shape, count in Counter(shapes).items():
        a, b = factors([shape], rank, device)["0"]
        total += count * timed(lambda a=a, b=b: torch.linalg.svd(b @ a, full_matrices=False), device, 0.5)[0]
    return total


def compared(given: Factors, index: int) -> str:
    """The largest relative errors of our singular values and S, in brackets the float32 SVD's."""
    flat = [m for pair in given.values() for m in pair]
    truth = torch.stack([torch.linalg.svdvals(m.double()) for m in flat])
    ours = gram_eig(flat)[0]
    single = torch.stack([torch.linalg.svd(m, full_matrices=False)[1] for m in flat]).double()
    of_values = [((d - truth).abs() / truth).max().item() for d in (ours, single)]
    true = signals(given, index, "float64")
    of_signals = [
        max(((s - t).norm() / t.norm()).item() for s, t in zip(signals(given, index, how), true, strict=True))
        for how in ("ours", "float32")
    ]
    return " ".join(f"{a:>9.0e} ({b:.0e})" for a, b in (of_values, of_signals))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ranks", type=int, nargs="+", default=[64, 128])
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    threads = sorted({1, torch.get_num_threads()}) if device.type == "cpu" else [torch.get_num_threads()]
    print(f"{device}, torch {torch.__version__}, load before {os.getloadavg()[0]:.1f}; seconds\n")
    print(
        f"{'model':7}{'R':>4}{'threads':>8}{'layers':>7}{'of':>5}{'ours':>8}{'svd':>8}{'ratio':>7}{'svd f64':>9}"
        f"{'ratio':>7}{'dense':>8}{'ratio':>7}{'I equal':>8}{'error of values':>16}{'of S':>16}"
    )
    for model, config in MODELS.items():
        shapes = layers(*config)
        torch.set_num_threads(1)
        dense = dense_seconds(shapes, chosen.ranks[0], device)
        for rank in chosen.ranks:
            given = factors(shapes, rank, device)
            step = 1 if device.type == "cuda" else max(1, len(shapes) // 64)
            some = dict(list(given.items())[::step])
            for count in threads:
                torch.set_num_threads(count)
                seed = torch.Generator()
                ours, done = timed(lambda: restart(given, P, seed.manual_seed(0)), device)  # noqa: B023
                rows = [
                    timed(lambda: by_svd(some, P, seed.manual_seed(0), dtype), device)  # noqa: B023
                    for dtype in (torch.float32, torch.float64)
                ]
                single, double = (seconds * len(given) / len(some) for seconds, _ in rows)
                equal = restart(some, P, seed.manual_seed(0)).index == rows[0][1][2] == rows[1][1][2]
                print(
                    f"{model:7}{rank:4}{count:8}{len(given):7}{len(some):5}{ours:8.2f}{single:8.2f}{single / ours:7.1f}"
                    f"{double:9.2f}{double / ours:7.1f}{dense:8.1f}{dense / ours:7.0f}{equal!s:>8}"
                    f"{compared(some, done.index):>32}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

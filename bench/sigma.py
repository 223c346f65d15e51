"""TriLoRA's first Σ, the top singular values of a weight: randomised range finder against the full SVD.

    python -m bench.sigma

Gaussian weights of Stable Diffusion's shapes for the time: their spectrum falls slowly, the hardest case for a range
finder. The attention of the miniature's UNet, trained, for the error that a user gets. Times are the shortest of
three, with one thread.
"""

import time

import torch

from aclora.core import params
from aclora.core.model import ModelConfig, load_model
from aclora.lora.tuner import matching
from aclora.methods.trilora import top_singular_values

SHAPES = [(320, 320), (640, 640), (1280, 1280), (1280, 2048)]


def shortest(what) -> tuple[float, torch.Tensor]:
    """Seconds of the quickest of three runs, and what came out."""
    took = []
    for _ in range(3):
        start = time.perf_counter()
        out = what()
        took.append(time.perf_counter() - start)
    return min(took), out


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    """The largest relative error of a singular value."""
    return ((found - true).abs() / true).max().item()


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'weight':>12} {'rank':>5} {'ours':>9} {'full SVD':>9} {'ratio':>6} {'largest relative error':>23}")
    for shape in SHAPES:
        weight = torch.randn(shape)
        for rank in (4, 32):
            ours, found = shortest(lambda w=weight, r=rank: top_singular_values(w, r))
            full, true = shortest(lambda w=weight: torch.linalg.svdvals(w))
            name = f"{shape[0]} × {shape[1]}"
            times = f"{ours * 1e3:6.0f} ms {full * 1e3:6.0f} ms {full / ours:6.1f}"
            print(f"{name:>12} {rank:5} {times} {error(found, true[:rank]):23.1e}")
    model = load_model(params.load("model", ModelConfig))
    weights = [layer.weight.detach() for layer in matching(model.network, model.adapter_layers).values()]
    for rank in (4, 32):
        worst = max(error(top_singular_values(w, rank), torch.linalg.svdvals(w)[:rank]) for w in weights)
        print(f"the miniature's {len(weights)} attention weights, rank {rank}: {worst:.1e}")


if __name__ == "__main__":
    main()

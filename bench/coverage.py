"""How often a nominal 0.95 interval of `aclora.metrics.intervals` holds the true mean: simulated, under two minutes.

`python -m bench.coverage [REPETITIONS]`. Coverage is that of `cluster_interval`, "plain" that of the same without its
widening for few clusters, and "naive" that of the same without what the case is about: every picture a cluster of its
own, or, for DINO's score, the reals held fixed. The share is that of the prompts in a score's variance. The command
fails where coverage at 32 prompts with no heavy tail is below 0.90; the last block, of fewer prompts and of heavy
tails, shows how far the interval may be trusted and fails nothing.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from aclora.metrics.intervals import cluster_interval

REPETITIONS, DRAWS, LEAST = 1000, 1000, 0.90  # fewer draws than the default cost coverage rather than add to it
PICTURES, DIM, SHARES = 2, 16, (0.2, 0.5, 0.9)

Sample = tuple[Tensor, Tensor | None]  # values (prompts × PICTURES,), reals (m,)


def noise(kind: str, rng: torch.Generator, *shape: int) -> Tensor:
    """Mean 0, variance 1: normal, exponential (skewness 2) or log-normal (skewness 6)."""
    z = torch.randn(*shape, generator=rng, dtype=torch.float64)
    if kind == "exponential":
        return -torch.special.log_ndtr(z) - 1
    if kind == "log-normal":
        e = torch.e
        return (z.exp() - e**0.5) / (e * e - e) ** 0.5
    return z


def scores(kind: str, share: float, prompts: int) -> Callable[[torch.Generator], Sample]:
    """Scores of mean 0, `share` of their variance between prompts."""

    def draw(rng):
        between, within = noise(kind, rng, prompts, 1), noise(kind, rng, prompts, PICTURES)
        return (share**0.5 * between + (1 - share) ** 0.5 * within).flatten(), None

    return draw


def difference(prompts: int) -> Callable[[torch.Generator], Sample]:
    """Differences of two methods' scores on the same prompts, which both share and each meets in its own way."""

    def draw(rng):
        common = noise("exponential", rng, prompts, 1)
        a, b = (common + noise("normal", rng, prompts, 1) + noise("normal", rng, prompts, PICTURES) for _ in range(2))
        return (a - b).flatten(), None

    return draw


def hits(share: float, prompts: int) -> Callable[[torch.Generator], Sample]:
    """Right or wrong, 80 in 100 right, less 0.8; `share` of the prompts have two alike."""

    def draw(rng):
        uniform = torch.rand(prompts, PICTURES, generator=rng, dtype=torch.float64)
        alike = torch.rand(prompts, 1, generator=rng) < share  # both pictures by one throw
        return (torch.where(alike, uniform[:, :1], uniform) < 0.8).double().flatten() - 0.8, None

    return draw


def features(n: int, m: int, rng: torch.Generator, effects: list[float]) -> list[Tensor]:
    """Unit features of the reals (m, d), then of each method's pictures (n × PICTURES, d) on the same n prompts."""

    def z(*shape):
        return 0.25 * torch.randn(*shape, DIM, generator=rng, dtype=torch.float64)  # norm 1

    sets, prompt = [z(m)], z(n, 1)
    sets[0][:, 0] += 1  # the style's direction
    for effect in effects:
        own = prompt + 0.5 * z(n, 1) + z(n, PICTURES)  # a method meets a prompt in its own way
        own[..., 0] += effect
        sets.append(own.flatten(0, 1))
    return [torch.nn.functional.normalize(s, dim=-1) for s in sets]


def dino(effects: list[float], prompts: int, m: int) -> Callable[[torch.Generator], Sample]:
    """Mean cosines of one method, or their differences of two, less the true value.

    Pictures and reals are independent, so the true mean cosine is the product of the two mean
    features; those are measured once, on 200 000 of each.
    """

    def mean_cosines(real, *generated, at):
        cosines = [g @ real.mean(0) if at == "rows" else real @ g.mean(0) for g in generated]
        return cosines[0] if len(cosines) == 1 else cosines[0] - cosines[1]

    many = features(100_000, 200_000, torch.Generator().manual_seed(1), effects)
    true = mean_cosines(*(s.mean(0, keepdim=True) for s in many), at="rows")

    def draw(rng):
        sets = features(prompts, m, rng, effects)
        return mean_cosines(*sets, at="rows") - true, mean_cosines(*sets, at="columns")

    return draw


def plain_interval(values: Tensor, reals: Tensor | None, seed: int) -> tuple[float, float]:
    """Plain percentiles of the same resampling, for prompts of PICTURES pictures each."""
    rng = torch.Generator().manual_seed(seed)
    drawn = values.mean()
    for units in (values.view(-1, PICTURES).mean(1), reals):
        if units is not None:
            k = len(units)
            drawn = drawn + (units - units.mean())[torch.randint(k, (DRAWS, k), generator=rng)].mean(1)
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def coverage(draw: Callable[[torch.Generator], Sample], prompts: int, repetitions: int) -> tuple[Tensor, float]:
    """Shares of repetitions whose interval, plain one and naive one hold 0, (3,), and the first's mean width."""
    rng = torch.Generator().manual_seed(0)
    prompt = torch.arange(prompts).repeat_interleave(PICTURES)
    ends = []
    for seed in range(1, repetitions + 1):
        values, reals = draw(rng)
        alone = torch.arange(len(values)) if reals is None else prompt
        ends.append(
            (
                cluster_interval(values, prompt, reals, draws=DRAWS, seed=seed),
                plain_interval(values, reals, seed),
                cluster_interval(values, alone, draws=DRAWS, seed=seed),
            )
        )
    low, high = torch.tensor(ends, dtype=torch.float64).unbind(-1)  # (repetitions, 3) each
    return ((low <= 0) & (high >= 0)).double().mean(0), (high - low)[:, 0].mean().item()


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    judged = [(f"{k}, share {s}", 32, None, scores(k, s, 32)) for k in ("normal", "exponential") for s in SHARES]
    judged += [(f"right or wrong, share {s}", 32, None, hits(s, 32)) for s in SHARES]
    judged += [("DINO", 32, m, dino([1.0], 32, m)) for m in (12, 64, 256)]
    judged += [("DINO, two methods' difference", 32, m, dino([1.0, 0.7], 32, m)) for m in (12, 64)]
    judged += [("two methods' difference, share 0.5", 32, None, difference(32))]
    shown = [(f"{k}, share 0.5", n, None, scores(k, 0.5, n)) for n in (16, 8) for k in ("normal", "exponential")]
    shown += [("log-normal, share 0.5", n, None, scores("log-normal", 0.5, n)) for n in (32, 16, 8)]
    shown += [("right or wrong, share 0.5", n, None, hits(0.5, n)) for n in (16, 8)]
    shown += [("DINO", n, 12, dino([1.0], n, 12)) for n in (16, 8)]
    print(f"{'case':36}{'prompts × pictures':>20}{'reals':>7}{'coverage':>10}{'plain':>8}{'naive':>8}{'width':>8}")
    least = 1.0
    for i, (case, prompts, m, draw) in enumerate(judged + shown):
        if i == len(judged):
            print("fewer prompts, heavy tails")
        (held, plain, naive), width = coverage(draw, prompts, repetitions)
        least = min(least, held.item()) if i < len(judged) else least
        size = f"{prompts} × {PICTURES}"
        print(f"{case:36}{size:>20}{m or '':>7}{held:10.3f}{plain:8.3f}{naive:8.3f}{width:8.3f}", flush=True)
    print(f"least coverage of the upper block: {least:.3f} of a nominal 0.95; at least {LEAST:.2f} is wanted")
    sys.exit(least < LEAST)


if __name__ == "__main__":
    main()

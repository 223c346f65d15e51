"""Intervals against closed forms, the resampling written out, and how often they hold the true mean."""

import numpy as np
import pytest
import torch

from aclora.core.errors import InputError
from aclora.metrics.intervals import cluster_interval


def scores(prompts=200, pictures=2, share=0.8, seed=0):
    """Scores of mean 0 and variance 1, `share` of it between prompts, and each one's prompt."""
    rng = torch.Generator().manual_seed(seed)
    between, within = torch.randn(prompts, 1, generator=rng), torch.randn(prompts, pictures, generator=rng)
    values = share**0.5 * between + (1 - share) ** 0.5 * within
    return values.flatten(), torch.arange(prompts).repeat_interleave(pictures)


def width(interval):
    return interval[1] - interval[0]


def test_it_is_the_normal_interval_of_the_clusters_means():
    values, prompts = scores()
    low, high = cluster_interval(values, prompts)
    means = values.double().view(200, 2).mean(1)
    error = (means.std() / 200**0.5).item()
    mean = means.mean().item()
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.15 * error)


@pytest.mark.parametrize(("prompts", "quantile"), [(3, 4.303), (8, 2.365), (32, 2.040)])
def test_few_clusters_are_as_wide_as_students_interval(prompts, quantile):
    """Averaged over samples: a percentile interval of one small sample is skewed as the sample is."""
    ratios = []
    for seed in range(100):
        values, index = scores(prompts, seed=seed)
        error = values.view(prompts, 2).mean(1).std().item() / prompts**0.5
        ratios.append(width(cluster_interval(values, index, draws=1000)) / (2 * error))
    assert np.mean(ratios) == pytest.approx(quantile, rel=0.06)


def test_a_lower_level_is_narrower():
    values, prompts = scores()
    ratio = width(cluster_interval(values, prompts, level=0.68)) / width(cluster_interval(values, prompts))
    assert ratio == pytest.approx(0.994 / 1.96, rel=0.05)


def test_pictures_that_agree_count_once():
    values, prompts = scores(share=1.0)
    alone = cluster_interval(values, torch.arange(400))
    assert width(cluster_interval(values, prompts)) == pytest.approx(2**0.5 * width(alone), rel=0.05)
    once = cluster_interval(values[::2], prompts[::2])
    assert cluster_interval(values, prompts) == pytest.approx(once)


def test_clusters_of_unequal_sizes():
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(150), rng.integers(1, 6, 150))
    values = rng.normal(size=150)[prompts] + 0.3 * rng.normal(size=len(prompts))
    rows = [np.flatnonzero(prompts == p) for p in range(150)]
    drawn = [values[np.concatenate([rows[p] for p in rng.integers(0, 150, 150)])].mean() for _ in range(4000)]
    expected = np.quantile(drawn, [0.025, 0.975])
    got = cluster_interval(torch.tensor(values), [f"prompt {p}" for p in prompts])
    assert got == pytest.approx(expected, abs=0.04 * width(expected))


def test_order_and_names_of_prompts_do_not_matter():
    values, prompts = scores(16)
    named = cluster_interval(values, [f"a house {p}" for p in prompts.tolist()])
    assert named == cluster_interval(values, prompts) == cluster_interval(values, 99 - prompts)


def test_constant_values_have_no_width():
    low, high = cluster_interval(torch.full((10,), 0.3), list("aabbccddee"), torch.full((4,), 0.3))
    assert low == pytest.approx(0.3)
    assert high == pytest.approx(low, abs=1e-12)


def test_paired_differences_of_identical_runs_are_zero():
    values, prompts = scores(32)
    reals = torch.rand(12)
    assert cluster_interval(values - values, prompts, reals - reals) == (0.0, 0.0)


def test_pairs_cancel_what_two_runs_share():
    values, prompts = scores(32, share=0.95)
    better = values + 0.3 + 0.1 * scores(32, seed=1)[0]
    low, high = cluster_interval(better - values, prompts)
    assert 0 < low < high
    assert cluster_interval(better, prompts)[0] < cluster_interval(values, prompts)[1]


def test_same_seed_same_interval_whatever_the_global_generator():
    values, prompts = scores(16)
    reals = torch.linspace(0, 1, 12)
    torch.manual_seed(1)
    first = cluster_interval(values, prompts, reals)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert cluster_interval(values, prompts, reals) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert cluster_interval(values, prompts, reals, seed=1) != first


def test_reals_are_the_resampling_of_both_sides_of_the_matrix():
    """Of an additive matrix the projection is exact: rows and columns drawn, all entries averaged."""
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=150)[np.repeat(np.arange(150), 2)], 1.5 * rng.normal(size=200)
    rows = rows + 0.5 * rng.normal(size=300)
    matrix = 5 + rows[:, None] + columns  # (300, 200)
    blocks = matrix.reshape(150, 2, 200).mean(1)
    counts = rng.multinomial(150, np.full(150, 1 / 150), 20000) / 150  # how often each prompt is drawn
    drawn = (counts @ blocks * rng.multinomial(200, np.full(200, 1 / 200), 20000) / 200).sum(1)
    expected = np.quantile(drawn, [0.025, 0.975])
    values, index = torch.tensor(matrix.mean(1)), torch.arange(150).repeat_interleave(2)
    both = cluster_interval(values, index, torch.tensor(matrix.mean(0)), draws=20000)
    assert both == pytest.approx(expected, abs=0.02 * width(expected))
    assert width(both) > 1.3 * width(cluster_interval(values, index))


def coverage(draw, repetitions=400):
    """Shares of drawn (values, prompts, reals) whose interval holds 0, with prompts or reals heeded and not."""
    heeded, naive = [], []
    for seed in range(repetitions):
        values, prompts, reals = draw(seed)
        heeded.append(cluster_interval(values, prompts, reals, draws=500))
        naive.append(cluster_interval(values, torch.arange(len(values)) if reals is None else prompts, draws=500))
    return [np.mean([low <= 0 <= high for low, high in ends]) for ends in (heeded, naive)]


def test_the_true_mean_is_held_where_the_naive_interval_misses_it():
    held, naive = coverage(lambda seed: (*scores(32, seed=seed), None))
    assert 0.90 <= held <= 0.99
    assert naive < 0.88


def test_dinos_true_mean_is_held_where_fixed_reals_miss_it():
    def draw(seed):
        rng = torch.Generator().manual_seed(1000 + seed)
        values, prompts = scores(32, seed=seed)
        reals = torch.randn(12, generator=rng)
        return values + reals.mean(), prompts, reals + values.mean()

    held, naive = coverage(draw)
    assert 0.90 <= held <= 0.99
    assert naive < 0.88


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clusters": ["a", "a", "b"]}, r"values of shape \(4,\) for 3 clusters: name one"),
        ({"values": torch.ones(4, 3)}, r"values of shape \(4, 3\) for 4 clusters"),
        ({"clusters": ["a"] * 4}, r"of 1 cluster\(s\): at least 2"),
        ({"values": torch.tensor([]), "clusters": []}, r"of 0 cluster\(s\): at least 2"),
        ({"values": torch.tensor([0, 1, torch.nan, 2])}, r"values\[2\] = nan: must be finite"),
        ({"reals": torch.tensor([0.0, torch.inf])}, r"reals\[1\] = inf: must be finite"),
        ({"reals": torch.ones(1)}, r"reals of shape \(1,\): \(m,\) with m at least 2"),
        ({"reals": torch.ones(4, 3)}, r"reals of shape \(4, 3\)"),
        ({"level": 95}, "level = 95: must be between 0 and 1"),
        ({"draws": 0}, "draws = 0: must be at least 1"),
    ],
)
def test_errors_say_what_to_do(change, message):
    good = {"values": torch.arange(4.0), "clusters": ["a", "a", "b", "b"]}
    with pytest.raises(InputError, match=message):
        cluster_interval(**(good | change))

"""CLIP score, DINO score, drift and average improvement: by loops, and by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from aclora.core.errors import InputError
from aclora.metrics.clip_score import clip_score
from aclora.metrics.contract import figures
from aclora.metrics.dino_score import ceiling, dino_score, to_real
from aclora.metrics.drift import drift, likeness
from aclora.metrics.improvement import average_improvement, relative_change
from aclora.metrics.kid import kernel_distance


def features(n, d=8, seed=0, mean=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + mean


def cosine(a, b):
    a, b = a.tolist(), b.tolist()
    return sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_clip_score_is_100_cosines_of_each_picture_and_its_own_prompt():
    pictures, prompts = features(6), features(6, seed=1)
    got = clip_score(pictures, prompts)
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx([100 * cosine(p, q) for p, q in zip(pictures, prompts, strict=True)])


def test_clip_score_keeps_what_is_below_zero():
    x = features(3)
    assert clip_score(x, -x).tolist() == pytest.approx([-100] * 3)
    assert clip_score(x, 5 * x).tolist() == pytest.approx([100] * 3)


@pytest.mark.parametrize("prompts", [features(1), features(5), features(6, 4)])
def test_clip_score_needs_a_prompt_for_each_picture(prompts):
    sizes = rf"\(6, 8\) picture and \({prompts.shape[0]}, {prompts.shape[1]}\) prompt features"
    with pytest.raises(InputError, match=f"^CLIP score of {sizes}: a prompt for each picture"):
        clip_score(features(6), prompts)


def test_dino_score_is_the_mean_over_all_pairs():
    x, real = features(5), features(7, seed=1)
    assert dino_score(x, real) == pytest.approx(mean(cosine(a, b) for a in x for b in real))
    assert dino_score(3 * x, real) == pytest.approx(dino_score(x, real))


def test_each_pictures_part_of_the_dino_score():
    x, real = features(5), features(7, seed=1)
    rows = to_real(x, real)
    assert rows.dtype == torch.float64
    assert rows.tolist() == pytest.approx([mean(cosine(a, b) for b in real) for a in x])
    assert rows.mean().item() == pytest.approx(dino_score(x, real), abs=1e-12)
    assert to_real(x[:1], real[:1]).item() == pytest.approx(cosine(x[0], real[0]))


def test_the_ceiling_is_the_mean_over_pairs_of_different_reals():
    real = features(6, mean=0.5)
    pairs = [cosine(a, b) for i, a in enumerate(real) for j, b in enumerate(real) if i != j]
    assert ceiling(real) == pytest.approx(mean(pairs))


def test_the_ceiling_is_what_a_perfect_generator_scores():
    pairs = [(features(20, seed=s, mean=0.5), features(20, seed=1000 + s, mean=0.5)) for s in range(200)]
    gaps = torch.tensor([dino_score(x, real) - ceiling(real) for x, real in pairs])
    assert gaps.mean().abs() < 3 * gaps.std() / len(gaps) ** 0.5
    assert gaps.std() / len(gaps) ** 0.5 < 0.005  # a ceiling that counted each with itself is 0.04 higher


def test_collapse_beats_fresh_draws_in_dino_score_and_kid_tells():
    real, fresh = features(50, 16, mean=0.5), features(50, 16, 1, mean=0.5)
    collapsed = F.normalize(real, dim=-1).mean(0).expand(50, 16)
    assert dino_score(collapsed, real) > ceiling(real) + 0.1 > dino_score(fresh, real)
    assert kernel_distance(collapsed, real) > kernel_distance(fresh, real) + 0.1


def test_dino_sets_that_do_not_compare_are_named():
    x = features(5)
    with pytest.raises(InputError, match=r"^DINO of 0 and 5 pictures: at least 1"):
        dino_score(x[:0], x)
    with pytest.raises(InputError, match=r"^DINO of features of 8 and 6 numbers: both sets need the same encoder"):
        to_real(x, x[:, :6])
    with pytest.raises(InputError, match=r"^DINO's ceiling of 1 and 1 pictures: at least 2"):
        ceiling(x[:1])


def test_likeness_and_drift_are_of_pairs():
    adapter, base = features(6), features(6, seed=1)
    cosines = [cosine(a, b) for a, b in zip(adapter, base, strict=True)]
    assert likeness(adapter, base).dtype == torch.float64
    assert likeness(adapter, base).tolist() == pytest.approx(cosines)
    assert drift(adapter, base) == pytest.approx(1 - mean(cosines))


def test_an_adapter_that_changes_nothing_does_not_drift():
    base = features(6)
    assert drift(base, base) == pytest.approx(0, abs=1e-12)
    assert drift(-base, base) == pytest.approx(2)
    assert drift(base[:1], base[:1]) == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match=r"^drift of features of 8 and 6 numbers"):
        drift(base, base[:, :6])


@pytest.mark.parametrize("n", [1, 5])
def test_drift_needs_as_many_pictures_with_as_without_the_adapter(n):
    with pytest.raises(InputError, match=f"drift of {n} and 6"):
        drift(features(n), features(6))


def test_a_change_is_positive_where_ours_is_better():
    assert relative_change(80, 100, -1) == pytest.approx(0.2)
    assert relative_change(33, 30, 1) == pytest.approx(0.1)
    assert relative_change(-0.5, -1.0, 1) == pytest.approx(0.5)
    assert relative_change(-1.5, -1.0, 1) == pytest.approx(-0.5)
    assert relative_change(5, 0.1, 1) == pytest.approx(49)
    assert relative_change(5, 0.099, 1) is None
    assert relative_change(5, -0.099, 1) is None


OURS = {"fid": 80, "clip_score": 33, "dino_score": 0.44, "image_reward": -0.5, "kid": 9}
RIVAL = {"fid": 100, "clip_score": 30, "dino_score": 0.4, "image_reward": -1.0, "kid": 1}


BETTER = {f.name: f.better for f in figures().values() if f.in_average}


def test_the_papers_four_are_averaged():
    assert BETTER == {"fid": -1, "clip_score": 1, "dino_score": 1, "image_reward": 1}


def test_average_improvement_by_hand():
    average, left_out = average_improvement(OURS, RIVAL, BETTER)  # of 0.2, 0.1, 0.1 and 0.5
    assert average == pytest.approx(0.225)
    assert left_out == {}
    worse, _ = average_improvement(RIVAL, OURS, BETTER)  # of -0.25, -1/11, -1/11 and -1
    assert worse == pytest.approx((-0.25 - 2 / 11 - 1) / 4)


def test_a_rival_too_near_zero_is_left_out_with_its_reason():
    average, left_out = average_improvement(OURS, RIVAL | {"image_reward": -0.0514}, BETTER)
    assert average == pytest.approx((0.2 + 0.1 + 0.1) / 3)
    assert left_out == {"image_reward": "the rival's -0.0514 is too near 0 for a ratio"}


def test_what_only_one_was_measured_by_is_left_out():
    average, left_out = average_improvement({"fid": 80, "clip_score": 33}, {"fid": 100, "dino_score": 0.4}, BETTER)
    assert average == pytest.approx(0.2)
    assert left_out == dict.fromkeys(["clip_score", "dino_score", "image_reward"], "not measured")


def test_no_average_where_nothing_is_left():
    average, left_out = average_improvement({"image_reward": 1.0, "kid": 3}, {"image_reward": 0.0, "kid": 2}, BETTER)
    assert average is None
    assert set(left_out) == {"fid", "clip_score", "dino_score", "image_reward"}

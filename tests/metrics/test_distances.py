"""FID, KID, CMMD and NFID against independent formulas."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from aclora.core.errors import InputError
from aclora.metrics.cmmd import clip_mmd
from aclora.metrics.fid import frechet_distance
from aclora.metrics.kid import kernel_distance
from aclora.metrics.nfid import normalised_fid


def sets(n=40, m=60, d=8, shift=0.3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng), 1.3 * torch.randn(m, d, generator=rng) + shift


def fid_by_root(x, y):
    x, y = x.double().numpy(), y.double().numpy()
    cx, cy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(cx @ cy).real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * root)


def u_statistic(kernel, x, y):
    x, y = x.double().tolist(), y.double().tolist()
    xx = [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    yy = [kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    return np.mean(xx) + np.mean(yy) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def cubic(a, b):
    return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3


def gaussian(a, b):
    a, b = ([p / math.hypot(*v) for p in v] for v in (a, b))
    return math.exp(-sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / (2 * 10**2))


def test_fid_is_the_one_by_matrix_root():
    assert frechet_distance(*sets()) == pytest.approx(fid_by_root(*sets()), rel=1e-9)


def test_fid_of_identical_sets_is_zero_and_it_is_symmetric():
    x, y = sets()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))


def test_fid_with_fewer_pictures_than_features():
    x, y = sets(5, 7, 64)
    assert frechet_distance(x, y) == pytest.approx(fid_by_root(x, y), rel=1e-4)  # the root is not exact here


def test_kid_is_the_u_statistic_written_out():
    x, y = sets(6, 5)
    assert kernel_distance(x, y) == pytest.approx(u_statistic(cubic, x, y))


def test_kid_is_torchmetrics_where_all_pictures_are_one_subset():
    from torchmetrics.image.kid import poly_mmd

    x, y = sets(30, 30)
    assert kernel_distance(x, y) == pytest.approx(float(poly_mmd(x.double(), y.double())), rel=1e-9)


def test_cmmd_is_the_u_statistic_on_unit_vectors():
    x, y = sets(6, 5)
    assert clip_mmd(x, y) == pytest.approx(1000 * u_statistic(gaussian, x, y), rel=1e-9)


def test_cmmd_does_not_see_how_long_features_are():
    x, y = sets()
    longer = torch.linspace(0.1, 9, len(x))[:, None]
    assert clip_mmd(longer * x, 7 * y) == pytest.approx(clip_mmd(x, y), rel=1e-5)


@pytest.mark.parametrize("metric", [kernel_distance, clip_mmd])
def test_it_is_unbiased_where_fid_is_not(metric):
    same = [sets(12, 64, 8, 0.0, seed) for seed in range(200)]
    same = [(x, y / 1.3) for x, y in same]
    values = torch.tensor([metric(x, y) for x, y in same])
    assert values.mean().abs() < 3 * values.std() / len(values) ** 0.5
    assert values.min() < 0
    assert min(frechet_distance(x, y) for x, y in same) > 0.5


@pytest.mark.parametrize("metric", [frechet_distance, kernel_distance, clip_mmd])
def test_what_is_further_off_has_the_larger_distance(metric):
    near, far = (metric(*sets(shift=shift)) for shift in (0.3, 1.0))
    assert 0 < near < far


def test_half_precision_is_computed_in_double():
    for metric in (frechet_distance, kernel_distance, clip_mmd):
        x, y = (s.half() for s in sets())
        assert metric(x, y) == metric(x.double(), y.double())


def test_nfid_is_the_ratio_of_two_fids():
    x, y = sets()
    other = sets(30, 2, seed=1)[0] - 1
    assert normalised_fid(x, other, y) == pytest.approx(fid_by_root(x, y) / fid_by_root(other, y), rel=1e-9)
    assert normalised_fid(x, x, y) == 1


def test_nfid_of_a_base_without_distance_is_no_number():
    x = sets()[0]
    still = torch.ones(4, 8)
    assert math.isnan(normalised_fid(x, still, still))


@pytest.mark.parametrize(("metric", "name"), [(frechet_distance, "FID"), (kernel_distance, "KID"), (clip_mmd, "CMMD")])
def test_sets_that_do_not_compare_are_named(metric, name):
    x, y = sets()
    with pytest.raises(InputError, match=f"^{name} of 1 and 60 pictures: at least 2 of each are needed$"):
        metric(x[:1], y)
    with pytest.raises(InputError, match=f"^{name} of 40 and 0 pictures: at least 2"):
        metric(x, y[:0])
    with pytest.raises(InputError, match=f"^{name} of features of 8 and 7 numbers: both sets need the same encoder$"):
        metric(x, y[:, :7])


@pytest.mark.parametrize("which", [0, 1, 2])
def test_nfid_names_the_set_that_is_too_small(which):
    three = [*sets(), sets(50)[0]]
    three[which] = three[which][:1]
    with pytest.raises(InputError, match=r"FID of .*\b1\b.* pictures: at least 2"):
        normalised_fid(*three)

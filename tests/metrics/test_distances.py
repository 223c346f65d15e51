"""FID, KID and nearness against independent formulas."""

import numpy as np
import pytest
import scipy.linalg
import torch

from aclora.errors import InputError
from aclora.metrics.copies import nearest_distance
from aclora.metrics.fid import frechet_distance
from aclora.metrics.kid import kernel_distance


def sets(n=40, m=60, d=8, shift=0.3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng), 1.3 * torch.randn(m, d, generator=rng) + shift


def test_fid_is_the_one_by_matrix_root():
    x, y = (s.double().numpy() for s in sets())
    cx, cy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(cx @ cy).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * root)
    assert frechet_distance(*sets()) == pytest.approx(expected, rel=1e-9)


def test_fid_of_identical_sets_is_zero_and_it_is_symmetric():
    x, y = sets()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))


def test_fid_with_fewer_pictures_than_features():
    x, y = sets(5, 7, 64)
    assert frechet_distance(x, y) > 0


def test_kid_is_the_u_statistic_written_out():
    x, y = sets(6, 5)

    def k(a, b):
        return (float(a.double() @ b.double()) / 8 + 1) ** 3

    xx = [k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    yy = [k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    xy = [k(a, b) for a in x for b in y]
    assert kernel_distance(x, y) == pytest.approx(np.mean(xx) + np.mean(yy) - 2 * np.mean(xy))


def test_kid_is_torchmetrics_where_all_pictures_are_one_subset():
    from torchmetrics.image.kid import poly_mmd

    x, y = sets(30, 30)
    assert kernel_distance(x, y) == pytest.approx(float(poly_mmd(x.double(), y.double())), rel=1e-9)


def test_kid_is_unbiased_where_fid_is_not():
    same = [sets(12, 64, 8, 0.0, seed) for seed in range(200)]
    same = [(x, y / 1.3) for x, y in same]
    kids = torch.tensor([kernel_distance(x, y) for x, y in same])
    assert kids.mean().abs() < 3 * kids.std() / len(kids) ** 0.5
    assert min(frechet_distance(x, y) for x, y in same) > 0.5


@pytest.mark.parametrize("metric", [frechet_distance, kernel_distance])
def test_one_picture_is_too_few(metric):
    x, y = sets()
    with pytest.raises(InputError, match="of 1 and 60 pictures: at least 2"):
        metric(x[:1], y)


def test_a_copy_is_at_distance_zero():
    x, y = sets()
    assert nearest_distance(y[3:4], y).item() == 0
    expected = min((x[0].double() - row.double()).norm().item() for row in y)
    assert nearest_distance(x[:1], y).item() == pytest.approx(expected)

"""Which pictures are copies, and by what measure."""

import math

import numpy as np
import pytest
import torch

from aclora.core.errors import InputError
from aclora.metrics.copies import NEAR, copies, nearest, own_distance


def features(n, d=8, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def apart(a, b):
    """Distance of two features' directions."""
    a, b = ([p / math.hypot(*v) for p in v] for v in (a.tolist(), b.tolist()))
    return math.dist(a, b)


def directions(*angles):
    return torch.tensor([[math.cos(a), math.sin(a)] for a in angles], dtype=torch.float64)


@pytest.mark.parametrize("m", [7, 60])  # torch has another way for many
def test_nearest_is_the_least_of_all_distances(m):
    x, training = features(9), features(m, seed=1)
    distance, index = nearest(x, training)
    for i, row in enumerate(x):
        all_of_it = [apart(row, t) for t in training]
        assert distance[i].item() == pytest.approx(min(all_of_it), rel=1e-6)
        assert index[i] == np.argmin(all_of_it)


def test_exact_copies_are_found_and_named():
    training, fresh = features(40, 64), features(5, 64, 1)
    order = [31, 4, 4, 17]
    x = torch.cat([training[order], fresh])
    distance, index = nearest(x, training)
    assert index[:4].tolist() == order
    assert distance[:4].max() < 1e-12
    assert copies(x, training, own_distance(training)).tolist() == [True] * 4 + [False] * 5


def test_a_copy_may_be_longer_but_not_mirrored():
    training = features(40, 64)
    own = own_distance(training)
    assert copies(3 * training, training, own).all()
    turned = training * torch.tensor([1.0, -1.0]).repeat(32)
    assert not copies(turned, training, own).any()
    assert not copies(-training, training, own).any()
    assert nearest(-training[:1], training[:1])[0].item() == pytest.approx(2)


def test_own_distance_is_that_of_real_pictures_nobody_trained_on():
    training, real = features(12), features(9, seed=1)
    expected = np.median([min(apart(r, t) for t in training) for r in real])
    assert own_distance(training, real) == pytest.approx(expected)


def test_without_real_pictures_it_is_that_of_the_training_pictures_to_each_other():
    training = features(11)
    each = [min(apart(a, b) for j, b in enumerate(training) if i != j) for i, a in enumerate(training)]
    assert own_distance(training) == pytest.approx(np.median(each))


def test_a_copy_is_nearer_than_half_the_own_distance():
    assert NEAR == 0.5
    training = directions(0, 0.4, 0.8)
    own = own_distance(training)
    assert own == pytest.approx(2 * math.sin(0.2))
    limit = 2 * math.asin(own / 4)  # the angle whose chord is half of it
    x = directions(0.99 * limit, 1.01 * limit, 0.8 + 0.99 * limit, -1.01 * limit)
    assert copies(x, training, own).tolist() == [True, False, True, False]
    assert copies(x, training, 2 * own).all()


def test_fresh_pictures_of_the_style_are_rarely_taken_for_copies():
    training, real, fresh = features(100, 16), features(200, 16, 1), features(500, 16, 2)
    assert copies(fresh, training, own_distance(training, real)).double().mean() < 0.02


def test_copies_are_found_among_training_pictures_that_are_all_there_twice():
    training = features(40, 64).repeat(2, 1)
    assert copies(training[:3], training, own_distance(training)).all()


def test_sets_that_do_not_compare_are_named():
    x = features(5)
    with pytest.raises(InputError, match=r"^nearness of 5 and 0 pictures: at least 1 of each are needed"):
        nearest(x, x[:0])
    with pytest.raises(InputError, match=r"^nearness of features of 8 and 6 numbers: both sets need the same encoder"):
        copies(x, x[:, :6], 1.0)
    with pytest.raises(InputError, match=r"^the training pictures' distances of 1 and 1 pictures: at least 2"):
        own_distance(x[:1])
    assert own_distance(x[:1], x[1:2]) == pytest.approx(apart(x[0], x[1]))  # with real ones, one will do

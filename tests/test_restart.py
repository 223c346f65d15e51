"""RESTART against a slow reference by torch.linalg.svd, and its invariants."""

import math

import pytest
import torch

from aclora.restart import restart, threshold


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def layers(n=3, r=8, k=40, d=24, seed=3):
    """Factors with a decaying spectrum."""
    rng = generator(seed)
    out = {}
    for i in range(n):
        scale = torch.logspace(0, -1.5, r)
        u = torch.linalg.qr(torch.randn(r, r, generator=rng))[0]
        a = (u * scale) @ torch.linalg.qr(torch.randn(k, r, generator=rng))[0].T
        b = torch.randn(d, r, generator=rng) * scale
        out[f"layer{i}"] = (a, b)
    return out


def reference_signal(m, p_or_index):
    """Signal by a full SVD; with a float the matrix's own index, with an int that many values."""
    u, d, vh = torch.linalg.svd(m.double(), full_matrices=False)
    if isinstance(p_or_index, float):
        energy, total, index = 0.0, float((d**2).sum()), 0
        for value in d:
            energy += float(value) ** 2
            if not energy < p_or_index * total:
                break
            index += 1
        return index
    return (u[:, :p_or_index] * d[:p_or_index]) @ vh[:p_or_index]


@pytest.mark.parametrize("p", [0.3, 0.7, 0.95])
def test_index_and_signal_are_the_references(p):
    given = layers()
    done = restart(given, p, generator())
    flat = [m for pair in given.values() for m in pair]
    own = [reference_signal(m, p) for m in flat]
    assert done.signal_index.flatten().tolist() == own
    assert done.index == max(1, *own)
    noise = generator()
    for m, new in zip(flat, [m for pair in done.factors.values() for m in pair], strict=True):
        signal = reference_signal(m, done.index)
        sigma = (m.double() - signal).var(correction=0).sqrt()
        expected = signal + sigma * torch.randn(m.shape, generator=noise).double()
        torch.testing.assert_close(new.double(), expected, rtol=0, atol=1e-6)


def test_the_kept_part_is_a_projection():
    given = layers(1)
    done = restart(given, 0.8, generator())
    for base in done.bases["layer0"]:
        projector = base @ base.T
        torch.testing.assert_close(projector @ projector, projector)
        torch.testing.assert_close(projector.trace(), torch.tensor(float(done.index), dtype=torch.float64))


def test_norms_are_kept_in_the_mean():
    given = layers(1, r=8, k=200, d=200)
    ratios = torch.stack([restart(given, 0.5, generator(s)).norm_ratio.square() for s in range(40)])
    torch.testing.assert_close(ratios.mean(0), torch.ones(1, 2), rtol=0, atol=0.02)


def test_the_same_seed_draws_the_same_noise_and_another_another():
    given = layers()
    first, again, other = (restart(given, 0.6, generator(s)).factors["layer1"][1] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_matrix_of_zeros_is_left_alone():
    a, b = layers(1)["layer0"]
    done = restart({"x": (a, torch.zeros_like(b))}, 0.9, generator())
    assert done.factors["x"][1].abs().max() == 0
    assert done.signal_index[0, 1] == -1
    assert not torch.equal(done.factors["x"][0], a)


def test_the_index_is_at_least_one():
    a = torch.outer(torch.tensor([1.0, 0, 0]), torch.ones(9))
    a[1, 3] = 0.01
    done = restart({"x": (a, torch.ones(5, 3))}, 0.5, generator())
    assert done.signal_index.tolist() == [[0, 0]]
    assert done.index == 1


def test_nothing_given_is_changed_in_place():
    given = layers(1)
    before = [m.clone() for m in given["layer0"]]
    restart(given, 0.5, generator())
    assert all(torch.equal(x, y) for x, y in zip(before, given["layer0"], strict=True))


@pytest.mark.parametrize(
    ("loss", "alpha", "epoch", "epochs", "p"),
    [(0.5, 1.0, 10, 10, 0.75), (0.25, 1.0, 5, 10, 1 - 0.25**1.5), (0.5, 2.0, 10, 10, 1 - 0.5**4)],
)
def test_threshold_is_the_papers(loss, alpha, epoch, epochs, p):
    assert threshold(loss, alpha, epoch, epochs) == pytest.approx(p)


def test_threshold_clamps_the_loss():
    assert 0 < threshold(3.0, 1.0, 1, 10) < 1e-5
    assert threshold(0.0, 1.0, 1, 10) < 1
    assert threshold(0.0, 1.0, 1, 10) > 0.99


def test_threshold_rises_as_the_loss_falls_and_as_training_goes_on():
    falling = [threshold(loss, 1.0, 5, 10) for loss in (0.9, 0.5, 0.2, 0.05)]
    later = [threshold(0.3, 1.0, e, 10) for e in (1, 4, 10)]
    assert falling == sorted(falling)
    assert later == sorted(later)
    assert math.isclose(later[-1], 1 - 0.3**2)

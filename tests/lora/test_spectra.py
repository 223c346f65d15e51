"""Spectra against torch.linalg.svd, matrix by matrix."""

import pytest
import torch

from aclora.lora.spectra import (
    MAX_STACK_ENTRIES_CPU,
    equal_stacks,
    gram_eig,
    kept_energy,
    product_svd,
    rank_for_energy,
    signal_index,
    truncate,
)


def factors(rng, d=20, k=30, r=6):
    return torch.randn(r, k, generator=rng), torch.randn(d, r, generator=rng)


def test_gram_values_and_vectors_are_those_of_the_svd(rng):
    a, b = factors(rng)
    values, vectors = gram_eig([a, b])
    for m, d, u in zip((a, b), values, vectors, strict=True):
        torch.testing.assert_close(d, torch.linalg.svdvals(m.double()), rtol=1e-9, atol=0)
        reference = torch.linalg.svd(m.double(), full_matrices=False)
        side = reference.U if m.shape[0] <= m.shape[1] else reference.Vh.T
        torch.testing.assert_close((u * side).sum(0).abs(), torch.ones(6, dtype=torch.float64))


def test_small_singular_values_survive():
    u = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)).double())[0]
    d = torch.logspace(0, -6, 8, dtype=torch.float64)
    values, _ = gram_eig([u * d])
    torch.testing.assert_close(values[0], d, rtol=1e-3, atol=0)


def test_signal_index_counts_strictly_below():
    values = torch.tensor([2.0, 1.0, 1.0])  # energies 4, 1, 1 of 6
    assert signal_index(values, 4 / 6 - 1e-9) == 0
    assert signal_index(values, 4 / 6 + 1e-9) == 1
    assert signal_index(values, 1.0) == 2  # never all: p ≤ 1 and the strict "<"
    assert signal_index(torch.zeros(3), 0.5) == 0


def test_signal_index_never_reaches_the_rank(rng):
    values = torch.rand(50, 7, generator=rng).sort(-1, descending=True).values
    assert signal_index(values, 0.999999).max() <= 6


@pytest.mark.parametrize(("p", "rank"), [(0.1, 1), (0.6, 1), (0.7, 2), (0.99, 3), (1.0, 3)])
def test_rank_for_energy_is_the_smallest_that_reaches_p(p, rank):
    assert rank_for_energy(torch.tensor([2.0, 1.0, 1.0]), p) == rank
    assert kept_energy(torch.tensor([2.0, 1.0, 1.0]), rank) >= p - 1e-9


def test_product_svd_is_that_of_the_product(rng):
    a, b = factors(rng)
    u, d, vh = product_svd(a, b)
    torch.testing.assert_close((u * d) @ vh, b.double() @ a.double())
    torch.testing.assert_close(d, torch.linalg.svdvals(b.double() @ a.double())[:6])


def test_product_svd_is_the_same_for_other_factors_of_the_product(rng):
    a, b = factors(rng)
    t = torch.randn(6, 6, generator=rng).double()
    torch.testing.assert_close(
        product_svd(t @ a.double(), b.double() @ torch.linalg.inv(t))[1], product_svd(a, b)[1], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_truncation_is_the_best_of_its_rank(rng, rank):
    a, b = factors(rng)
    cut_a, cut_b, error = truncate(a, b, rank)
    assert cut_a.shape == (rank, 30)
    assert cut_b.shape == (20, rank)
    full = (b @ a).double()
    d = torch.linalg.svdvals(full)
    best = (d[rank:].square().sum() / d.square().sum()).sqrt().item()
    assert error == pytest.approx(best, abs=1e-6)
    assert ((full - (cut_b @ cut_a).double()).norm() / full.norm()).item() == pytest.approx(best, abs=1e-5)


def test_truncating_nothing_loses_nothing():
    a, b, error = truncate(torch.ones(3, 5), torch.zeros(4, 3), 1)
    assert error == 0
    assert (b @ a).abs().max() == 0


def test_a_stack_of_products_is_that_of_each(rng):
    many = [factors(rng) for _ in range(4)]
    u, d, vh = product_svd(*(torch.stack(m) for m in zip(*many, strict=True)))
    for i, (a, b) in enumerate(many):
        torch.testing.assert_close(d[i], product_svd(a, b)[1])
        torch.testing.assert_close((u[i] * d[i]) @ vh[i], b.double() @ a.double())


def test_a_rank_above_the_layers_smaller_side(rng):
    a, b = factors(rng, d=4, k=5, r=6)
    u, d, vh = product_svd(a, b)
    assert (u.shape, d.shape, vh.shape) == ((4, 4), (4,), (4, 5))
    torch.testing.assert_close((u * d) @ vh, b.double() @ a.double())


def test_matrices_of_many_shapes_keep_their_order(rng):
    shapes = [(6, 30), (20, 6), (6, 9), (6, 30), (6, 6), (20, 6)]
    flat = [torch.randn(shape, generator=rng) for shape in shapes]
    values, vectors = gram_eig(flat)
    for m, d, u in zip(flat, values, vectors, strict=True):
        alone = gram_eig([m])
        assert torch.equal(alone[0][0], d)
        assert torch.equal(alone[1][0], u)


def test_stacks_hold_equal_keys_and_stay_within_the_limit():
    cpu = torch.device("cpu")
    assert list(equal_stacks(["x", "y", "x", "x"], [1, 1, 1, 1], cpu)) == [[0, 2, 3], [1]]
    assert list(equal_stacks(["x"] * 3, [MAX_STACK_ENTRIES_CPU // 2] * 3, cpu)) == [[0, 1], [2]]
    assert list(equal_stacks(["x"] * 2, [2 * MAX_STACK_ENTRIES_CPU] * 2, cpu)) == [[0], [1]]

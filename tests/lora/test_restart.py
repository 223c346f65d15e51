"""RESTART against a slow reference by torch.linalg.svd, and its invariants."""

import math

import pytest
import torch

from aclora.lora.restart import carry_moments, restart, threshold


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


def pairs_of(done):
    return [m for pair in done.factors.values() for m in pair]


def test_the_default_is_the_papers_to_the_bit():
    """Matrix by matrix, as METHOD.md says it, with the generator's numbers in order; nothing grouped, no option."""
    for seed in range(5):
        given = layers(4, seed=seed) | {"wide": layers(1, r=8, k=24, d=40)["layer0"]}
        flat, noise = [m for pair in given.values() for m in pair], generator(seed)
        grams = [m.double() @ m.double().T if m.shape[0] <= m.shape[1] else m.double().T @ m.double() for m in flat]
        squares, vectors = torch.linalg.eigh(torch.stack(grams))
        energy = squares.flip(-1).clamp_min(0).sqrt().square()
        index = int((energy.cumsum(-1) < 0.7 * energy.sum(-1, keepdim=True)).sum(-1).max())
        for m, u, new in zip(flat, vectors, pairs_of(restart(given, 0.7, generator(seed))), strict=True):
            base, wide = u.flip(-1)[:, :index], m.double()
            signal = base @ (base.T @ wide) if m.shape[0] <= m.shape[1] else (wide @ base) @ base.T
            std = (wide - signal).var(correction=0).sqrt()
            assert torch.equal(new, (signal + std * torch.randn(m.shape, generator=noise).double()).float())


def test_the_signal_of_the_signal_is_the_signal():
    first = restart(layers(2), 0.8, generator(), noise="zero")
    second = restart(first.factors, 0.8, generator(), noise="zero", floor=first.index)
    for m, again in zip(pairs_of(first), pairs_of(second), strict=True):
        torch.testing.assert_close(again, m)
        assert torch.linalg.matrix_rank(m) == first.index


def test_zero_leaves_the_signal_alone():
    given = layers()
    done = restart(given, 0.8, generator(), noise="zero")
    for m, new in zip([m for pair in given.values() for m in pair], pairs_of(done), strict=True):
        torch.testing.assert_close(new.double(), reference_signal(m, done.index), rtol=0, atol=1e-6)
    assert not done.sigma.any()
    torch.testing.assert_close(done.norm_ratio, done.kept.sqrt())


def test_structured_noise_keeps_the_spectrum_and_the_signal_and_nothing_else():
    given = layers()
    done = restart(given, 0.8, generator(), noise="structured")
    index = done.index
    for m, new in zip([m for pair in given.values() for m in pair], pairs_of(done), strict=True):
        signal, new = reference_signal(m, index), new.double()
        torch.testing.assert_close(torch.linalg.svdvals(new), torch.linalg.svdvals(m.double()), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(new.norm(), m.double().norm(), rtol=1e-6, atol=0)
        rest = new - signal
        for product in (rest @ signal.T, rest.T @ signal):  # orthogonal on both sides
            torch.testing.assert_close(product, torch.zeros_like(product), rtol=0, atol=1e-5)
        old = m.double() - signal
        assert ((rest * old).sum() / old.square().sum()).abs() < 0.5  # and it is another one
    torch.testing.assert_close(done.norm_ratio, torch.ones(3, 2))


def test_structured_noise_has_no_direction_of_its_own():
    given = layers(1, r=6, k=10, d=9)
    made = [restart(given, 0.6, generator(s), noise="structured").factors["layer0"] for s in range(600)]
    for old, new in zip(given["layer0"], zip(*made, strict=True), strict=True):
        index = restart(given, 0.6, generator()).index
        rest = torch.stack(new).double().mean(0) - reference_signal(old, index)
        assert rest.norm() < 0.15 * (old.double() - reference_signal(old, index)).norm()


@pytest.mark.parametrize("refill", ["init", "noise"])
def test_the_product_keeps_its_leading_components(refill):
    given = layers()
    done = restart(given, 0.8, generator(), on="product", refill=refill)
    own = [reference_signal(b.double() @ a.double(), 0.8) for a, b in given.values()]
    assert done.signal_index.tolist() == [[i, i] for i in own]
    index = done.index
    assert index == max(own)
    for i, (name, (a, b)) in enumerate(given.items()):
        new_a, new_b = done.factors[name]
        assert new_a.shape == a.shape
        assert new_b.shape == b.shape
        signal = reference_signal(b.double() @ a.double(), index)
        torch.testing.assert_close((new_b[:, :index] @ new_a[:index]).double(), signal, rtol=0, atol=1e-5)
        gram_a, gram_b = new_a[:index] @ new_a[:index].T, new_b[:, :index].T @ new_b[:, :index]
        torch.testing.assert_close(gram_a, gram_b, rtol=1e-4, atol=1e-6)  # balanced: both are D
        torch.testing.assert_close(gram_a.diagonal().double(), done.values[i, 0, :index], rtol=1e-5, atol=0)
        ratio = (new_b.double() @ new_a.double()).norm() / (b.double() @ a.double()).norm()
        torch.testing.assert_close(done.norm_ratio[i], ratio.float().expand(2))
        d = torch.linalg.svdvals(b.double() @ a.double())[:8]
        torch.testing.assert_close(done.values[i, 1], d, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(done.kept[i, 0].double(), d[:index].square().sum() / d.square().sum())


def test_init_leaves_the_product_exactly_its_signal():
    given = layers(1, r=16, k=200, d=60)
    done = restart(given, 0.8, generator(), on="product")
    a, b = done.factors["layer0"]
    assert not b[:, done.index :].any()
    torch.testing.assert_close(a[done.index :].std(), torch.tensor(1 / 16), rtol=0.1, atol=0)
    torch.testing.assert_close(done.norm_ratio, done.kept.sqrt())
    assert done.sigma.tolist() == [[1 / 16, 0]]


def test_refilled_noise_has_the_energy_that_was_lost():
    given = layers(1, r=8, k=40, d=24)
    a, b = given["layer0"]
    energies = []
    for seed in range(200):
        done = restart(given, 0.6, generator(seed), on="product", refill="noise")
        new_a, new_b = (m.double() for m in done.factors["layer0"])
        energies.append((new_b[:, done.index :] @ new_a[done.index :]).square().sum())
    lost = (b.double() @ a.double()).square().sum() * (1 - done.kept[0, 0])
    torch.testing.assert_close(torch.stack(energies).mean(), lost, rtol=0.05, atol=0)
    assert done.sigma[0, 0] == done.sigma[0, 1] > 0


def test_the_product_does_not_ask_how_it_was_written():
    given, rng = layers(), generator(9)
    other = {}
    for name, (a, b) in given.items():
        t = torch.randn(8, 8, generator=rng, dtype=torch.float64)
        other[name] = (t @ a.double(), b.double() @ torch.linalg.inv(t))
    one, two = (restart(f, 0.8, generator(), on="product") for f in (given, other))
    assert (one.index, one.signal_index.tolist()) == (two.index, two.signal_index.tolist())
    for (a, b), (c, d) in zip(one.factors.values(), two.factors.values(), strict=True):
        torch.testing.assert_close(d @ c, (b.double() @ a.double()), rtol=0, atol=1e-5)
    assert restart(given, 0.8, generator()).index != restart(other, 0.8, generator()).index  # the factors do


@pytest.mark.parametrize("how", [{}, {"noise": "zero"}, {"noise": "structured"}, {"on": "product", "refill": "noise"}])
def test_what_is_zero_is_left_alone_and_draws_nothing(how):
    given = layers(2)
    a, b = given["layer0"]
    done = restart({"x": (a, torch.zeros_like(b)), **given}, 0.8, generator(), **how)
    assert done.signal_index[0, 1] == -1
    assert not done.factors["x"][1].any()
    if "on" in how:
        assert torch.equal(done.factors["x"][0], a)
        alone = restart(given, 0.8, generator(), **how)
        assert all(torch.equal(x, done.factors[n][0]) for n, (x, _) in alone.factors.items())


def test_one_index_for_all_or_each_its_own():
    given = layers(3) | {"flat": (torch.eye(8, 40), torch.eye(24, 8))}
    own = restart(given, 0.7, generator()).signal_index
    assert len(own.unique()) > 2
    of = {u: restart(given, 0.7, generator(), unify=u) for u in ("max", "mean", "none")}
    assert of["max"].used.unique().tolist() == [own.max()] == [of["max"].index]
    assert of["mean"].used.unique().tolist() == [math.floor(own.double().mean() + 0.5)] == [of["mean"].index]
    assert torch.equal(of["none"].used, own.clamp(min=1))
    assert of["none"].index == own.max()
    for (name, (a, b)), index in zip(of["none"].bases.items(), of["none"].used.tolist(), strict=True):
        assert [a.shape[1], b.shape[1]] == index, name
    bounded = restart(given, 0.7, generator(), unify="none", floor=3, ceiling=4)
    assert torch.equal(bounded.used, own.clamp(3, 4))
    for used, m in zip(bounded.used.flatten().tolist(), [m for p in given.values() for m in p], strict=True):
        zero = restart({"x": (m, m) if m.shape[0] == 8 else (m.T, m)}, 0.7, generator(), noise="zero", floor=used)
        assert torch.linalg.matrix_rank(zero.factors["x"][0]) == zero.used[0, 0]


@pytest.mark.parametrize("how", [{}, {"noise": "structured"}, {"on": "product"}])
def test_layers_may_differ_in_rank(how):
    small, large = layers(1, r=4)["layer0"], layers(1, r=8)["layer0"]
    done = restart({"small": small, "large": large}, 0.2, generator(), floor=5, **how)
    assert done.used.tolist() == [[4, 4], [5, 5]]
    torch.testing.assert_close(
        done.factors["small"][1] @ done.factors["small"][0], small[1] @ small[0], rtol=1e-4, atol=1e-5
    )  # 4 of 4 kept
    alone = restart({"small": small}, 0.2, generator(), **how)
    torch.testing.assert_close(alone.values[0], done.values[0, :, :4])
    assert not done.values[0, :, 4:].any()


def adam(factors):
    """Parameters of one layer and Adam after a few steps on 0.5·‖B A − X‖²."""
    a, b = (torch.nn.Parameter(m.clone()) for m in factors)
    optimizer = torch.optim.Adam([a, b], lr=1e-3)
    target = torch.randn(b.shape[0], a.shape[1], generator=generator(5))
    for _ in range(4):
        (b @ a - target).square().sum().mul(0.5).backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer, {"layer0": (a, b)}


@pytest.mark.parametrize("refill", ["init", "noise"])
def test_the_first_moment_follows_the_products_new_basis(refill):
    """Moments of the gradients of one fixed dL/dΔW = G turn into what the new factors' gradients would have given."""
    a, b = layers(1)["layer0"]
    optimizer, held = adam((a, b))
    done = restart({"layer0": (a, b)}, 0.8, generator(), on="product", refill=refill)
    grad = torch.randn(24, 40, generator=generator(6))
    for parameter, mean in zip(held["layer0"], (b.T @ grad, grad @ a.T), strict=True):
        optimizer.state[parameter]["exp_avg"].copy_(mean)
    carry_moments(optimizer, held, done, "project")
    index, (new_a, new_b) = done.index, done.factors["layer0"]
    mean_a, mean_b = (optimizer.state[p]["exp_avg"] for p in held["layer0"])
    torch.testing.assert_close(mean_a[:index], new_b[:, :index].T @ grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mean_b[:, :index], grad @ new_a[:index].T, rtol=1e-4, atol=1e-4)
    assert not mean_a[index:].any()
    assert not mean_b[:, index:].any()
    for x, parameter in enumerate(held["layer0"]):
        square = optimizer.state[parameter]["exp_avg_sq"]
        square = square.T if x else square
        assert (square > 0).all()
        torch.testing.assert_close(square[index:], square[:index].mean(0, keepdim=True).expand(8 - index, -1))


@pytest.mark.parametrize("on", ["factors", "product"])
def test_each_may_have_its_own_index_when_moments_are_projected(on):
    given = layers(1)
    optimizer, held = adam(given["layer0"])
    done = restart(given, 0.8, generator(), on=on, unify="none")
    carry_moments(optimizer, held, done, "project")
    for parameter, used in zip(held["layer0"], done.used[0].tolist(), strict=True):
        assert torch.linalg.matrix_rank(optimizer.state[parameter]["exp_avg"]) == used


@pytest.mark.parametrize("how", ["keep", "reset"])
def test_moments_are_kept_or_start_anew(how):
    given = layers(1)
    optimizer, held = adam(given["layer0"])
    before = {p: {k: v.clone() for k, v in optimizer.state[p].items()} for p in held["layer0"]}
    carry_moments(optimizer, held, restart(given, 0.8, generator(), on="product"), how)
    for p in held["layer0"]:
        for key, value in optimizer.state[p].items():
            assert torch.equal(value, before[p][key] if how == "keep" else torch.zeros_like(value))

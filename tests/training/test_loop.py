"""The loop on a tiny model: repeatable, steered by every knob, and stopped by a loss that is no number."""

import pytest
import torch
from accelerate import Accelerator

from aclora.core.errors import InputError
from aclora.training.loop import Encoded, TrainConfig, denoise, fit, fixed_loss
from tests.conftest import make_method, model_at, section


def short(**knobs):
    """The section `train` of a short training."""
    return section("train", TrainConfig, **{"epochs": 3, "batch_size": 2, "learning_rate": 1e-2} | knobs)


def style(n=5, seed=0):
    rng = torch.Generator().manual_seed(seed)
    mean, text = 0.3 * torch.randn(n, 4, 8, 8, generator=rng), torch.randn(n, 6, 32, generator=rng)
    return Encoded(mean, torch.full_like(mean, 0.1), {"prompt_embeds": text})


def train(model, config=None, name="aclora", data=None, **knobs):
    """(records, final factors, loss at fixed noise) of one run."""
    torch.manual_seed(0)
    method = make_method(name, **knobs or {"max_rank": 4, "restart_every": 1})
    data = data or style()
    parameters = method.attach(model.network, model.adapter_layers)
    records = list(fit(model, data, method, parameters, config or short(), Accelerator(cpu=True)))
    return records, [m.clone() for pair in method.factors().values() for m in pair], fixed_loss(model, data)


@pytest.fixture
def fresh(tiny_folder):
    """A way to load the tiny model again and again."""
    return lambda: model_at(tiny_folder)


def test_two_runs_are_the_same_to_the_bit(fresh):
    (first, a, _), (second, b, _) = train(fresh()), train(fresh())
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert [r["loss"] for r in first] == [r["loss"] for r in second]


def test_records_come_in_order(fresh):
    records, _, _ = train(fresh())
    assert [(r["event"], r["epoch"]) for r in records] == [
        ("epoch", 1),
        ("restart", 1),
        ("epoch", 2),
        ("restart", 2),
        ("epoch", 3),
    ]


def test_training_lowers_the_loss_it_is_measured_by(fresh):
    config = short(epochs=12)
    model, data = fresh(), style()
    before = fixed_loss(model, data)
    _, _, after = train(model, config, "lora", data, rank=8)
    assert after < 0.97 * before


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 4},
        {"batch_size": 3},
        {"learning_rate": 5e-3},
        {"weight_decay": 0.5},
        {"max_grad_norm": 1e-3},
        {"mixed_precision": "bf16"},
        {"seed": 1},
    ],
    ids=lambda c: next(iter(c)),
)
def test_every_training_knob_matters(fresh, change):
    config = short(**change)
    _, plain, _ = train(fresh())
    torch.manual_seed(0)
    method = make_method("aclora", max_rank=4, restart_every=1)
    model = fresh()
    parameters = method.attach(model.network, model.adapter_layers)
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision=config.mixed_precision)
    list(fit(model, style(), method, parameters, config, accelerator))
    AcceleratorState._reset_state(reset_partial_state=True)
    changed = [m for pair in method.factors().values() for m in pair]
    assert not all(torch.equal(x, y) for x, y in zip(plain, changed, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"restart_every": 2},
        {"alpha": 3.0},
        {"max_rank": 5},
        {"optimizer_state": "reset"},
        {"optimizer_state": "project"},
    ],
    ids=lambda c: "-".join(map(str, c.values())),
)
def test_every_aclora_knob_matters(fresh, change):
    base = {"max_rank": 4, "restart_every": 1}
    _, plain, _ = train(fresh(), **base)
    _, changed, _ = train(fresh(), **(base | change))
    assert [m.shape for m in plain] != [m.shape for m in changed] or not all(
        torch.equal(x, y) for x, y in zip(plain, changed, strict=True)
    )


def test_a_loss_that_is_no_number_names_the_knob(fresh):
    data = style()
    data.mean[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"train.learning_rate = 0.01: the loss is nan in epoch 1"):
        train(fresh(), data=data)


def test_the_fixed_loss_does_not_move_by_itself_and_leaves_the_generators_alone(fresh):
    model = fresh()
    state = torch.get_rng_state()
    assert fixed_loss(model, style()) == fixed_loss(model, style(), batch=16)
    assert fixed_loss(model, style()) == pytest.approx(fixed_loss(model, style(), batch=3), rel=1e-5)
    assert torch.equal(state, torch.get_rng_state())


def test_a_perfect_prediction_has_no_loss(fresh):
    model = fresh()
    x, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([10, 700])
    perfect = model.target(x, noise, times)
    model.predict = lambda noisy, times, text: perfect
    assert denoise(model, x, noise, times, {})[0].item() == 0
    loss, prediction, noisy = denoise(model, x, noise + 1, times, {})
    assert loss.item() > 0.5
    assert torch.equal(prediction, perfect)
    assert torch.equal(noisy, model.noisy(x, noise + 1, times))


def test_the_fixed_times_lie_one_in_each_equal_share_of_the_schedule(fresh):
    model, seen = fresh(), []
    predict = model.predict
    model.predict = lambda noisy, times, text: seen.append(times) or predict(noisy, times, text)
    fixed_loss(model, style(), draws=4)
    times = torch.cat(seen).sort().values
    assert len(times) == 20
    assert (times.diff() - 50).abs().max() <= 1  # of 1000 in 20 shares

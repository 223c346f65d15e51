"""AC-LoRA's variants on a tiny UNet: no knob is dead, each record is whole, what makes no sense is refused."""

import json

import pytest
import torch

from aclora.core.errors import InputError
from aclora.core.method import EpochEnd
from aclora.methods.aclora import AcLoraConfig
from tests.conftest import make_method, model_at, section

BASE = {"restart_every": 2, "max_rank": 6}


def run(tiny, epochs=7, **knobs):
    """(factors, optimizer, records, signal) of a short made-up training; the loss falls, gradients are drawn."""
    torch.manual_seed(0)
    method = make_method("aclora", **BASE | knobs)
    parameters = method.attach(tiny.network, tiny.adapter_layers)
    optimizer = torch.optim.AdamW(parameters, lr=5e-3)
    rng, records = torch.Generator().manual_seed(3), []
    with torch.no_grad():
        for i, p in enumerate(parameters):  # spectra that differ, or a mean were the maximum
            p += 0.2 * torch.randn(p.shape, generator=rng) * torch.logspace(0, -(i % 4), p.shape[1])
    for epoch in range(1, epochs + 1):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=rng)
        optimizer.step()
        draw, probe = torch.Generator().manual_seed(epoch), iter((0.5, 0.6)).__next__
        end = EpochEnd(epoch, epochs, 0.9 / epoch**0.5, draw, optimizer, probe)
        if record := method.epoch_end(end):
            records.append(record)
    return method.factors(), optimizer, records, method.signal()


def outcome(result):
    """What a run leaves behind, as comparable numbers."""
    factors, _, records, (cut, report) = result
    ranks = torch.tensor([a.shape[0] for a, _ in cut.values()])
    p = torch.tensor([r["p"] for r in records], dtype=torch.float64)
    return [*(m for pair in factors.values() for m in pair), ranks, p, torch.tensor(report["p"])]


CHANGES = [
    {"restart_every": 3},
    {"alpha": 0.5},
    {"max_rank": 5},
    {"restart_on": "product"},
    {"noise": "zero"},
    {"noise": "structured"},
    {"restart_on": "product", "refill": "noise"},
    {"threshold": 0.6},
    {"threshold_max": 0.3},
    {"unify": "mean"},
    {"unify": "none"},
    {"min_index": 5},
    {"max_index": 1},
    {"optimizer_state": "reset"},
    {"optimizer_state": "project"},
    {"signal_rank": "unified"},
    {"signal_rank": "per_layer"},
]


@pytest.fixture(scope="module")
def usual(tiny_folder):
    """The outcome by default, and on the product."""

    def made(**knobs):
        return outcome(run(model_at(tiny_folder), **knobs))

    return {"factors": made(), "product": made(restart_on="product")}


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: " ".join(map(str, c.items())))
def test_every_knob_changes_what_comes_out(tiny, usual, change):
    with_what = usual["product" if "refill" in change else "factors"]
    made = outcome(run(tiny, **change))
    assert not all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(made, with_what, strict=True))


def test_the_list_above_is_complete():
    assert {knob for change in CHANGES for knob in change} == set(AcLoraConfig.model_fields)


@pytest.mark.parametrize("unify", ["max", "mean", "none"])
@pytest.mark.parametrize("how", [{}, {"noise": "structured"}, {"restart_on": "product", "refill": "noise"}])
@pytest.mark.parametrize("state", ["keep", "reset", "project"])
def test_all_variants_work_together_and_leave_one_record_a_restart(tiny, unify, how, state):
    factors, optimizer, records, (cut, _) = run(tiny, unify=unify, optimizer_state=state, **how)
    assert len(records) == 3
    assert all(m.isfinite().all() for pair in (*factors.values(), *cut.values()) for m in pair)
    assert all(m.isfinite().all() for s in optimizer.state.values() for m in s.values())
    n = len(factors)
    for record in records:
        assert record.pop("values").shape == (n, 2, 6)
        lists = {k for k, v in record.items() if isinstance(v, list)}
        assert lists == {f"{key}_{x}" for key in ("I", "kept", "sigma", "norm_ratio") for x in "AB"}
        assert all(len(record[k]) == n for k in lists)
        assert {"loss", "p", "I", "probe_before", "probe_after"} == set(record) - lists
        json.dumps(record)
        if "restart_on" in how:
            assert record["I_A"] == record["I_B"]
            assert record["kept_A"] == record["kept_B"]


def test_the_function_keeps_its_signal_on_the_product(tiny):
    torch.manual_seed(0)
    method = make_method("aclora", restart_every=1, max_rank=6, restart_on="product", threshold=0.9)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in method.attach(tiny.network, tiny.adapter_layers):
            p += 0.1 * torch.randn(p.shape, generator=rng)
    before = {name: b @ a for name, (a, b) in method.factors().items()}
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    draw = torch.Generator().manual_seed(0)
    index = method.epoch_end(EpochEnd(1, 9, 0.4, draw, optimizer, lambda: 0.5))["I"]
    for name, (a, b) in method.factors().items():
        u, d, vh = torch.linalg.svd(before[name])
        torch.testing.assert_close(b @ a, (u[:, :index] * d[:index]) @ vh[:index], rtol=1e-4, atol=1e-5)


def test_p_is_fixed_or_capped(tiny_folder):
    def of(**knobs):
        _, _, records, (_, report) = run(model_at(tiny_folder), **knobs)
        return [r["p"] for r in records], report["p"]

    free, _ = of()
    assert free == sorted(free)
    assert len(set(free)) == 3
    assert of(threshold=0.6) == ([0.6] * 3, 0.6)
    with pytest.raises(
        InputError, match=r"^threshold = 0.6: must be at most threshold_max = 0.5, which would take its"
    ):
        of(threshold=0.6, threshold_max=0.5)
    cap = (free[0] + free[1]) / 2
    assert of(threshold_max=cap)[0] == [free[0], cap, cap]


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"threshold": 1.0}, "threshold = 1.0: must be between 0 and 1, or dynamic"),
        ({"threshold": 0.0}, "threshold = 0.0: must be between 0 and 1"),
        ({"threshold_max": 0.0}, "threshold_max = 0.0: must be above 0 and at most 1"),
        ({"threshold_max": 1.1}, "threshold_max = 1.1: must be"),
        ({"min_index": 0}, "min_index = 0: must be at least 1 and below max_rank = 16"),
        ({"min_index": 16}, "min_index = 16: must be at least 1 and below max_rank = 16"),
        ({"min_index": 3, "max_index": 2}, "max_index = 2: must be at least min_index = 3, or null"),
        ({"refill": "noise"}, "refill = 'noise': must be init where restart_on = 'factors'"),
        ({"restart_on": "product", "noise": "zero"}, "noise = 'zero': must be gaussian where restart_on = 'product'"),
        ({"restart_on": "product", "noise": "structured"}, "noise = 'structured': must be gaussian where restart_on"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(knobs, said):
    with pytest.raises(InputError) as error:
        section("aclora", AcLoraConfig, **{"max_rank": 16} | knobs)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("on", ["factors", "product"])
def test_weights_that_are_no_numbers_stop_with_layer_and_epoch(tiny, value, on):
    method = make_method("aclora", restart_every=1, max_rank=4, restart_on=on)
    parameters = method.attach(tiny.network, tiny.adapter_layers)
    with torch.no_grad():
        parameters[3][0, 0] = value
    name = list(method.factors())[1]
    optimizer = torch.optim.AdamW(parameters)
    end = EpochEnd(1, 9, 0.4, torch.Generator(), optimizer, lambda: 0.5)
    with pytest.raises(InputError, match=rf"layer {name} is not finite at the RESTART of epoch 1"):
        method.epoch_end(end)

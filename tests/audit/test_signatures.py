"""The failure signatures on histories made to show them, and on one that shows none."""

import pytest
import torch

from aclora.audit.signatures import AuditConfig, audit, failure, final_spectra
from tests.conftest import section

LAYERS = ["q", "k"]


def bounds(**knobs):
    return section("audit", AuditConfig, **knobs)


def restarts(n=5, **changes):
    """A healthy history: the loss falls, p and I rise, every RESTART is felt a little."""
    out = []
    for i in range(1, n + 1):
        record = {
            "event": "restart",
            "epoch": 10 * i,
            "loss": 0.5 - 0.06 * i,
            "p": 0.5 + 0.08 * i,
            "I": 1 + i,
            "I_A": [1 + i, 1],
            "I_B": [1, 1],
            "kept_A": [0.8, 0.8],
            "kept_B": [0.9, 0.9],
            "norm_ratio_A": [1.0, 1.01],
            "norm_ratio_B": [0.99, 1.0],
            "probe_before": 0.4 - 0.05 * i,
            "probe_after": 0.41 - 0.05 * i,
        }
        out.append(record | {k: v(i) if callable(v) else v for k, v in changes.items()})
    epochs = [{"event": "epoch", "epoch": e, "loss": 0.5 - 0.005 * e} for e in range(1, 10 * n + 1)]
    return sorted(epochs + out, key=lambda r: (r["epoch"], r["event"]))


def found(history):
    report = audit(history, LAYERS, bounds())
    return {name for name, seen in report["signatures"].items() if seen["found"]}


def test_a_healthy_history_shows_none():
    assert found(restarts()) == set()
    report = audit(restarts(), LAYERS, bounds())
    assert (report["epochs"], report["restarts"]) == (50, 5)
    assert report["I"] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("signature", "changes"),
    [
        ("rank_collapse", {"I_B": [0, 1], "kept_B": [0.01, 0.9]}),
        ("mode_collapse", {"probe_before": 0.2, "probe_after": lambda i: 0.4, "norm_ratio_A": [1.0, 1.8]}),
        ("stagnation", {"p": lambda i: 0.5 - 0.05 * i}),
        ("stagnation", {"I": lambda i: 9 - i}),
        ("stagnation", {"I": 2}),
        ("no_op", {"probe_before": 0.3, "probe_after": 0.3001}),
    ],
)
def test_each_signature_is_found(signature, changes):
    assert signature in found(restarts(**changes))


def test_a_rise_that_comes_back_is_no_collapse():
    assert "mode_collapse" not in found(restarts(probe_before=lambda i: 0.4 - 0.05 * i, probe_after=0.9))
    assert "mode_collapse" in found(restarts(probe_before=lambda i: 0.2 + 0.05 * i, probe_after=0.9))


def test_a_collapse_names_layer_factor_and_epoch():
    seen = audit(restarts(I_B=[0, 1], kept_B=[0.01, 0.9]), LAYERS, bounds())["signatures"]["rank_collapse"]
    assert seen["at"] == {"epoch": 10, "layer": "q", "factor": "B", "kept": 0.01}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"I_B": [0, 1], "kept_B": [0.01, 0.9]},
            "rank collapse at epoch 10 in q, factor B: a RESTART kept 1.0% of its energy; raise aclora.alpha",
        ),
        (
            {"probe_before": lambda i: 0.2 + 0.05 * i, "probe_after": 0.9, "norm_ratio_B": [0.99, 1.2]},
            "mode collapse at epoch 10 in k, factor B: its norm became 1.20",
        ),
        ({"norm_ratio_A": [1.0, 1.8]}, "mode collapse at epoch 10 in k, factor A: its norm became 1.80"),
        (
            {"probe_before": 0.3, "probe_after": lambda i: 0.3001 + (i == 3) * 1e-4, "kept_A": [0.7, 0.8]},
            "no op at epoch 30 in q, factor A: even there, where a RESTART kept 70.0%",
        ),
    ],
)
def test_a_failure_names_epoch_layer_and_knob(changes, said):
    why = failure(audit(restarts(**changes), LAYERS, bounds()))
    assert why.startswith(said)
    assert "aclora.alpha" in why
    assert "\n" not in why


def test_health_and_stagnation_fail_nothing():
    assert failure(audit(restarts(), LAYERS, bounds())) is None
    assert failure(audit(restarts(I=2), LAYERS, bounds())) is None
    assert failure(audit([], [], bounds())) is None


def test_its_bounds_are_knobs():
    history = restarts(probe_before=0.3, probe_after=0.303)
    assert not audit(history, LAYERS, bounds())["signatures"]["no_op"]["found"]
    assert audit(history, LAYERS, bounds(no_op_below=0.05))["signatures"]["no_op"]["found"]
    rising = restarts(probe_before=lambda i: 0.2 + 0.01 * i, probe_after=0.3)
    assert not audit(rising, LAYERS, bounds())["signatures"]["mode_collapse"]["found"]
    assert audit(rising, LAYERS, bounds(loss_rise=1.1))["signatures"]["mode_collapse"]["found"]
    thin = restarts(kept_A=[0.2, 0.8])
    assert not audit(thin, LAYERS, bounds())["signatures"]["rank_collapse"]["found"]
    assert audit(thin, LAYERS, bounds(min_kept=0.3))["signatures"]["rank_collapse"]["found"]


def test_without_a_restart_there_is_nothing_to_find():
    assert audit([], [], bounds()) == {"epochs": 0, "restarts": 0}
    history = [{"event": "epoch", "epoch": 1, "loss": 0.5}]
    assert audit(history, LAYERS, bounds()) == {"epochs": 1, "restarts": 0, "loss_first": 0.5, "loss_last": 0.5}


def test_final_spectra_are_those_of_the_svd(rng):
    factors = {n: (torch.randn(3, 9, generator=rng), torch.randn(7, 3, generator=rng)) for n in LAYERS}
    spectra = final_spectra(factors)
    for row, (a, b) in enumerate(factors.values()):
        for name, m in (("A", a), ("B", b), ("BA", b @ a)):
            torch.testing.assert_close(spectra[name][row], torch.linalg.svdvals(m.double())[:3], rtol=1e-5, atol=1e-5)

"""A run's parameters as flat texts, and what of its history is plotted."""

import pytest

from aclora.project import records


def test_parameters_are_flat_texts():
    values = {
        "aclora": {"alpha": 1.0, "max_index": None, "noise": "zero"},
        "method": "aclora",
        "audit": {"strict": True},
    }
    flat = {"aclora.alpha": "1.0", "aclora.max_index": "null", "aclora.noise": "zero", "method": "aclora"}
    assert records.flat(values) == flat | {"audit.strict": "true"}


def test_an_epochs_loss_and_a_restarts_figures_are_plotted():
    assert records.points({"event": "epoch", "epoch": 3, "loss": 0.5}) == {"train/loss": 0.5}
    restart = {"event": "restart", "epoch": 3, "p": 0.3, "I": 4, "probe_before": None, "I_A": [4, 2]}
    kept = {"kept_A": [0.5, 0.7], "kept_B": [0.9, None], "kept": [None]}
    expected = {"train/p": 0.3, "train/I": 4, "train/kept_A": 0.6, "train/kept_B": 0.9}
    assert records.points(restart | kept) == pytest.approx(expected)


def test_where_a_figure_comes_from_is_one_line():
    figure = {"encoder": "models/clip ab12", "generated": 64, "reference": 24, "interval": [0.1, 0.2]}
    assert records.made_by(figure) == "models/clip ab12; 64 generated; 24 reference; 95 % interval [0.1, 0.2]"

"""A run's parameters as flat texts, and what of its history is plotted."""

import pytest

from aclora.core.errors import InputError
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


LOCK = """
schema: '2.0'
stages:
  train@ink:
    cmd: python train.py ink
    deps: [{path: code.py, hash: md5, md5: aa, size: 3}, {path: pictures, hash: md5, md5: bb.dir, nfiles: 2}]
    params: {params.yaml: {train: {epochs: 3}}}
    outs: [{path: adapter-ink, hash: md5, md5: cc}]
  train@oil:
    cmd: python train.py oil
  prepare:
    cmd: python prepare.py
"""


def test_a_lock_says_which_run_it_holds():
    """Two commits with the same digest hold the same run of a style."""
    before = records.lock_digest(LOCK, "ink")
    assert records.locked_styles(LOCK) == ["ink", "oil"]
    assert records.lock_digest(LOCK.replace("size: 3", "size: 4").replace("oil", "fog"), "ink") == before
    for old, new in (("epochs: 3", "epochs: 4"), ("md5: aa", "md5: ab"), ("md5: cc", "md5: cd"), ("py ink", "py ink2")):
        assert records.lock_digest(LOCK.replace(old, new), "ink") != before
    assert records.lock_digest(LOCK, "fog") == records.lock_digest("", "ink") == ""


def test_a_lock_with_a_conflict_in_it_is_an_error():
    with pytest.raises(InputError, match=r"^dvc.lock is not YAML: "):
        records.locked_styles(f"<<<<<<< HEAD\n{LOCK}")

"""Which run a fingerprint has: found, taken over from a training, or new."""

import signal
import subprocess
import sys

import pytest

from aclora.tracking import store
from tests.tracking.conftest import RUN, TRAIN, by

OTHER = "ef" * 32


@pytest.fixture
def client(home):
    with store.connected() as client:
        yield client


def begin(client, fingerprint=RUN, **more):
    return store.run_of(client, "fog", fingerprint, TRAIN, **more)


def test_a_run_is_named_for_its_experiment(client):
    plain = begin(client)
    assert plain.info.run_name == f"fog {RUN[:8]}"
    static = begin(client, OTHER, params={"train.epochs": "4"}, experiment="static")
    assert static.info.run_id == plain.info.run_id  # the training, whose later stages changed
    assert static.info.run_name == "fog static"
    assert static.data.tags["aclora.experiment"] == "static"
    again = begin(client, OTHER, experiment="renamed")
    assert (again.info.run_id, again.info.run_name) == (plain.info.run_id, "fog static")


@pytest.mark.parametrize("what", ["scores", "other parameters", "published", "superseded"])
def test_a_finished_or_other_run_of_the_same_training_is_left_alone(client, what):
    run_id = begin(client).info.run_id
    if what == "scores":
        store.log_series(client, run_id, {("kid", 8): 0.1})
    if what == "other parameters":
        store.log_texts(client, run_id, {"evaluate.batch_size": "32"}, {})
    if what == "published":
        client.set_tag(run_id, store.ADAPTER, "d")
    if what == "superseded":
        store.supersede(client, client.get_run(run_id))
    other = begin(client, OTHER, params={"evaluate.batch_size": "16"})
    assert other.info.run_id != run_id
    assert client.get_run(run_id).data.tags["aclora.fingerprint"] == RUN


def test_a_training_whose_parameters_are_the_same_becomes_the_run(client):
    run_id = begin(client).info.run_id
    store.log_series(client, run_id, {("train/loss", 1): 0.5})
    store.log_texts(client, run_id, {"train.epochs": "8"}, {})
    assert begin(client, OTHER, params={"train.epochs": "8"}).info.run_id == run_id


def test_a_point_that_becomes_a_models_is_not_logged_twice(client):
    run = begin(client)
    run_id, points = run.info.run_id, {("kid", 8): 0.25, ("fid", 8): 60.0}
    store.log_series(client, run_id, {("kid", 8): 0.25})
    model = client.create_logged_model(run.info.experiment_id, "fog", run_id).model_id
    done = store.logged(client, client.get_run(run_id), ["kid", "fid"])
    store.log_series(client, run_id, points, done, model)
    assert {m.key: m.value for m in client.get_logged_model(model).metrics} == {"kid": 0.25, "fid": 60.0}
    for key in ("kid", "fid"):
        assert len(client.get_metric_history(run_id, key)) == 1


def test_a_process_killed_while_it_makes_the_database_leaves_none(tmp_path, monkeypatch):
    """Half of MLflow's tables would never open again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code = "from aclora.tracking import store\nwith store.connected():\n    pass"
    making = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    by(120, lambda: [f for f in tmp_path.glob(".mlflow.db.*.part") if f.stat().st_size])
    making.send_signal(signal.SIGKILL)
    making.wait()
    assert not (tmp_path / "mlflow.db").exists()
    with store.connected() as client:
        begin(client)
    assert {f.name for f in tmp_path.iterdir()} == {"mlflow.db", ".cache"}

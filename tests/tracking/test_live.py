"""Live records against a real MLflow: a file of its own, a server, one that dies, one that never answers."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aclora.core.errors import InputError
from aclora.project import records
from aclora.tracking import store
from aclora.tracking.live import Tail, live
from aclora.tracking.reproduce import find

RUN, TRAIN = "ab" * 32, "cd" * 32
HISTORY = []
for epoch in range(1, 31):
    HISTORY.append({"event": "epoch", "epoch": epoch, "loss": 1 / epoch})
    if epoch % 10 == 0:
        kept = {"kept_A": [0.5, 0.7], "kept_B": [0.9, None]}
        HISTORY.append({"event": "restart", "epoch": epoch, "p": epoch / 30, "I": 4, "probe_before": None} | kept)


def by(seconds, holds):
    """Wait until `holds()`; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A tracking database with nothing in it: making one takes seconds."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    code = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{file}').search_experiments()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return file


@pytest.fixture
def home(empty_store, tmp_path, monkeypatch):
    """A project's folder with the default store."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "ACLORA_TRACKING"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@contextlib.contextmanager
def server(folder, port):
    """`mlflow server` on the folder's database; yields its process."""
    command = ["mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "served"), "--port", str(port)]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    with (folder / "server.log").open("w") as log:
        child = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        by(60, lambda: answers(port))
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def train(lines, until=None):
    """Append records as a training does; `until` is waited for half-way. Returns the seconds that leaving took."""
    history = Path("history.jsonl")
    with live("fog", RUN, TRAIN, history):
        with history.open("a") as file:
            for i, line in enumerate(lines):
                if until and i == len(lines) // 2:
                    until()
                file.write(json.dumps(line) + "\n")
                file.flush()
        left = time.monotonic()
    return time.monotonic() - left


def shown():
    """The one run there is, and its series as (name, epoch) → value; no point is there twice."""
    with store.connected() as client:
        experiment = client.get_experiment_by_name("aclora")
        (run,) = client.search_runs([experiment.experiment_id])
        points = [m for key in run.data.metrics for m in client.get_metric_history(run.info.run_id, key)]
    series = {(m.key, m.step): m.value for m in points}
    assert len(series) == len(points)
    return run, series


def expected(lines=HISTORY):
    return {(key, line["epoch"]): v for line in lines for key, v in records.points(line).items()}


def test_the_live_series_are_the_history(home, capfd):
    train(HISTORY)
    run, series = shown()
    assert series == expected()
    assert series["train/kept_A", 20] == pytest.approx(0.6)
    assert series["train/kept_B", 20] == 0.9
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"fog {RUN[:8]}"
    assert run.data.tags["aclora.fingerprint"] == RUN
    assert run.data.tags["aclora.train_fingerprint"] == TRAIN
    assert (home / "mlartifacts").as_uri() in run.info.artifact_uri
    assert "tracking" not in capfd.readouterr().err


def test_a_training_that_goes_on_doubles_nothing(home):
    def fails():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        train(HISTORY[:24], until=fails)
    run, series = shown()
    assert run.info.status == "FAILED"
    assert series == expected(HISTORY[:12])
    Path("history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in HISTORY[:7]))  # back to a checkpoint
    train(HISTORY[7:])
    run, series = shown()
    assert series == expected()
    assert run.info.status == "FINISHED"


def test_what_trains_is_killed_and_nothing_of_it_stays(home):
    code = (
        "import sys, time; from pathlib import Path; from aclora.tracking.live import live\n"
        f"with live('fog', '{RUN}', '{TRAIN}', Path('history.jsonl')):\n"
        "    print('in', flush=True); time.sleep(600)"
    )
    Path("history.jsonl").write_text(json.dumps(HISTORY[0]) + "\n")
    trainer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert trainer.stdout.readline() == b"in\n"
    (child,) = Path(f"/proc/{trainer.pid}/task/{trainer.pid}/children").read_text().split()
    trainer.kill()
    trainer.communicate()
    by(30, lambda: not Path(f"/proc/{child}").exists())
    run, series = shown()
    assert run.info.status == "KILLED"
    assert series == expected(HISTORY[:1])


def test_off_is_off(home, monkeypatch):
    monkeypatch.setenv("ACLORA_TRACKING", "off")
    before = (home / "mlflow.db").read_bytes()
    assert train(HISTORY) < 0.1
    assert (home / "mlflow.db").read_bytes() == before


def said(capfd):
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert "MLFLOW_TRACKING_URI" in lines[0]
    assert "`aclora publish fog`" in lines[0]


def test_a_server_that_is_not_there_is_said_once(home, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    train(HISTORY)
    said(capfd)


def test_a_server_that_never_answers_is_said_once(home, monkeypatch, capfd):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(16)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        train(HISTORY)
        said(capfd)


@pytest.mark.slow
def test_leaving_waits_no_longer_than_it_says(home, monkeypatch, capfd):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(16)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
        assert train(HISTORY) < 15
    assert capfd.readouterr().err.count("tracking: it took too long") == 1


def test_a_server_that_dies_half_way_and_comes_back(home, monkeypatch, capfd):
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with server(home, port) as process:

        def dies():
            by(60, lambda: shown_there(home))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

        train(HISTORY, until=dies)
        said(capfd)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # the server's database, without it
    _, series = shown()
    assert series.items() < expected().items()
    train([])
    assert shown()[1] == expected()


def shown_there(home):
    import sqlite3

    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as base:
        return base.execute("select count(*) from metrics").fetchone()[0] >= 10


def test_a_tail_reads_whole_lines_and_begins_again_where_the_file_was_cut(tmp_path):
    file = tmp_path / "history.jsonl"
    tail = Tail(file)
    assert tail.new() == []
    file.write_text('{"a": 1}\n{"a":')
    assert tail.new() == [{"a": 1}]
    with file.open("a") as more:
        more.write(" 2}\n")
    assert tail.new() == [{"a": 2}]
    file.write_text('{"a": 3}\n')
    assert tail.new() == [{"a": 3}]
    file.unlink()
    assert tail.new() == []
    file.write_text("")
    assert tail.new() == []


def test_parameters_are_flat_texts():
    values = {
        "aclora": {"alpha": 1.0, "max_index": None, "noise": "zero"},
        "method": "aclora",
        "audit": {"strict": True},
    }
    flat = {"aclora.alpha": "1.0", "aclora.max_index": "null", "aclora.noise": "zero", "method": "aclora"}
    assert records.flat(values) == flat | {"audit.strict": "true"}


@pytest.mark.parametrize("name", ["fog@champion", "0123456789abcdef0123456789abcdef", "abcdef", "abc", "fog", "a'b"])
def test_a_run_that_is_not_there_is_said(home, name):
    with pytest.raises(InputError, match="run ") as error:
        find(name)
    assert str(home) in str(error.value)


def test_without_a_store_there_is_nothing_to_find_and_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI"):
        find("fog@champion")
    assert not list(tmp_path.iterdir())


def test_a_live_run_is_not_one_to_reproduce(home):
    train(HISTORY[:1])
    with pytest.raises(InputError, match="never published completely: `aclora publish fog`"):
        find(RUN[:8])

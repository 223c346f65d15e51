"""Live records against a real MLflow: a file of its own, a server, one that dies, one that never answers."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from aclora.project import records
from aclora.tracking import store
from aclora.tracking.live import Tail
from tests.tracking.conftest import HISTORY, RUN, TRAIN, by, free_port, server, train


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


def test_a_resumed_training_duplicates_no_point(home):
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


def test_a_killed_training_leaves_no_sender_behind(home):
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


def test_off_sends_nothing_and_costs_nothing(home, monkeypatch):
    monkeypatch.setenv("ACLORA_TRACKING", "off")
    before = (home / "mlflow.db").read_bytes()
    assert train(HISTORY) < 0.1
    assert (home / "mlflow.db").read_bytes() == before


def warned_once(capfd):
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert "MLFLOW_TRACKING_URI" in lines[0]
    assert "`aclora publish fog`" in lines[0]


def test_a_missing_server_is_one_line(home, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    train(HISTORY)
    warned_once(capfd)


def test_a_server_that_never_answers_is_one_line(home, monkeypatch, capfd):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(16)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        train(HISTORY)
        warned_once(capfd)


@pytest.mark.slow
def test_leaving_waits_no_longer_than_promised(home, monkeypatch, capfd):
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
        warned_once(capfd)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # the server's database, without it
    _, series = shown()
    assert series.items() < expected().items()
    train([])
    assert shown()[1] == expected()


def shown_there(home):
    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as base:
        return base.execute("select count(*) from metrics").fetchone()[0] >= 10


def test_a_tail_reads_complete_lines_and_starts_over_if_the_file_was_cut(tmp_path):
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

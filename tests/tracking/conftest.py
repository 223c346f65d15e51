"""A project's folder with a tracking store, a real MLflow server, and a training that appends to its history."""

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

from aclora.tracking.live import live

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

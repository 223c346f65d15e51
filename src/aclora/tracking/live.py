"""A training's and an evaluation's records in MLflow as they arise, sent by a process that cannot disturb them."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from aclora.core.errors import InputError
from aclora.project import fingerprint, records
from aclora.tracking import store

GRACE = 10  # seconds that a stage waits at its end for what is to be sent
STARTUP = 60  # seconds that it waits for a sender that is not ready yet: short stages, on a machine busy with others
READY = threading.Event()  # in the sender
WARNED = 3  # exit status of a sender that has printed why it stopped


@contextlib.contextmanager
def live(style: str, run_fingerprint: str | None, train_fingerprint: str, history: Path) -> Iterator[None]:
    """While a training inside appends its records to `history`, loss, p, I and kept energy go to the style's run.

    So do the parameters of all of the style's stages. Without `run_fingerprint` the sender computes it from the current
    folder: a missing input of a later stage is no reason not to train. Whatever happens there, nothing is raised here,
    and leaving takes little longer than `GRACE` seconds. With `ACLORA_TRACKING=off` nothing is sent.
    """
    with _sender("training", style, run_fingerprint or "", train_fingerprint, str(history)):
        yield


@contextlib.contextmanager
def scoring(style: str) -> Iterator[None]:
    """When the evaluation inside has written its files, parameters, series and scores go to the style's run.

    What is said of `live` holds here too. An evaluation that fails sends nothing.
    """
    with _sender("evaluation", style):
        yield


@contextlib.contextmanager
def _sender(kind: str, style: str, *arguments: str) -> Iterator[None]:
    """A process of its own, started at once because importing mlflow takes seconds, and told how the inside ended."""
    if os.environ.get("ACLORA_TRACKING") == "off":
        yield
        return
    try:
        sender = subprocess.Popen(
            [sys.executable, "-m", "aclora.tracking.live", kind, style, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is the training's alone: it ends this process too, and needs it to the end
        )
    except OSError as error:
        warn(kind, style, error)
        yield
        return
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        matters = status == "FINISHED" or kind == "training"
        if matters:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                _end(sender, status)
        sender.kill()
        with contextlib.suppress(OSError), sender:  # which closes its pipes
            pass
        if matters and sender.returncode not in (0, WARNED):
            warn(kind, style, "it took too long" if sender.returncode < 0 else f"exit status {sender.returncode}")


def _end(sender, status):
    """Tell the sender how the stage ended, and wait for it: what it does before it is ready needs no server."""
    sender.stdin.write(status.encode())
    sender.stdin.close()
    select.select([sender.stdout], [], [], STARTUP)  # it is ready, or gone
    sender.wait(GRACE + 1)


def warn(kind: str, style: str, why: object, file=None) -> None:
    """Print the one line about tracking that does not work."""
    line = f"tracking: {' '.join(str(why).split())}; the {kind} goes on, `aclora publish {style}` adds what is missing"
    print(f"\n{line}", file=file or sys.stderr, flush=True)


def follow(style: str, run_fingerprint: str, train_fingerprint: str, history: Path) -> None:
    """Send the content of `history`, and what is appended to it, until standard input ends with the run's status."""
    status, ended = [], threading.Event()
    threading.Thread(target=_wait_for_end, args=(status, ended), daemon=True).start()
    run_fingerprint = run_fingerprint or fingerprint.run_fingerprint(style)
    with store.connected(MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR="1") as client:
        params = _inputs(style)
        _ready()
        run = store.run_of(client, style, run_fingerprint, train_fingerprint, params, experiment())
        run_id = run.info.run_id
        client.update_run(run_id, status="RUNNING")
        store.log_texts(client, run_id, params, {})
        sent = set(store.logged(client, run, list(run.data.metrics)))
        tail = Tail(history)
        while True:
            last = ended.is_set()
            found = [(key, line["epoch"], v) for line in tail.new() for key, v in records.points(line).items()]
            points = {(key, epoch): v for key, epoch, v in found if (key, epoch) not in sent}
            started = time.process_time()
            if points:
                store.log_series(client, run_id, points)
                sent |= points.keys()
            if last:
                break
            ended.wait(max(1, 100 * (time.process_time() - started)))  # one hundredth of a core at most
        client.set_terminated(run_id, status[0])


def send(style: str) -> None:
    """Send an evaluation's results once standard input says that it has finished."""
    from aclora.tracking import publish

    with store.connected(MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR="1") as client:
        _ready()
        status = []
        _wait_for_end(status, threading.Event())
        if status != ["FINISHED"]:
            return
        results = records.results(style, Path.cwd())
        run, done = publish.begun(client, results, experiment())
        run_id = run.info.run_id
        store.log_texts(client, run_id, results.params, results.tags)
        store.log_series(client, run_id, results.series | results.scores, done)
        client.set_terminated(run_id, "FINISHED")


def experiment() -> str | None:
    """The name of DVC's experiment in which this process runs; None outside of one."""
    return os.environ.get("DVC_EXP_NAME") or None


def _inputs(style):
    """The parameters of the style's stages; none outside of a project of DVC's."""
    try:
        return records.inputs(style, Path.cwd())
    except InputError:
        return {}


class Tail:
    """The lines of a growing file; from its beginning again if it was cut."""

    def __init__(self, path: Path):
        self.path, self.position = path, 0

    def new(self) -> list[dict]:
        """The complete lines since the last call, parsed."""
        if not self.path.exists():
            return []
        if self.path.stat().st_size < self.position:
            self.position = 0
        with self.path.open("rb") as file:
            file.seek(self.position)
            text, end, _ = file.read().rpartition(b"\n")
        self.position += len(text + end)
        return [json.loads(line) for line in text.splitlines()]


def _wait_for_end(status, ended):
    """Wait until the stage closes the pipe, or is gone; from then on the sender has `GRACE` seconds."""
    status.append(sys.stdin.read() or "KILLED")
    signal.alarm(GRACE if READY.is_set() else STARTUP + GRACE)
    ended.set()


def _ready():
    """Say so to the stage that waits."""
    READY.set()
    with contextlib.suppress(OSError):  # the stage is gone
        os.write(sys.stdout.fileno(), b".")


def _main():
    os.nice(5)  # at 19 it would not be ready at the end, beside other jobs
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends when the training does
        signal.signal(number, signal.SIG_IGN)
    stderr = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hides mlflow's own messages
    kind, style, *rest = sys.argv[1:]
    try:
        if kind == "training":
            follow(style, rest[0], rest[1], Path(rest[2]))
        else:
            send(style)
    except Exception as error:
        warn(kind, style, error, stderr)
        os._exit(WARNED)
    os._exit(0)  # at once: the training waits


if __name__ == "__main__":
    _main()

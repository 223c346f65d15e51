"""A training's records in MLflow while it trains, by a process of its own that cannot disturb it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from aclora.project import records

GRACE = 10  # seconds that a training waits for its last points
SAID = 3  # exit status of the process that has said why it stopped


@contextlib.contextmanager
def live(style: str, run_fingerprint: str | None, train_fingerprint: str, history: Path) -> Iterator[None]:
    """While a training inside appends its records to `history`, loss, p, I and kept energy go to the style's run.

    None as `run_fingerprint` is that of the folder's project: telling it is left to the other process, because a later
    stage's missing input is no reason not to train. Whatever happens there, nothing is raised here, and leaving waits
    little longer than `GRACE` seconds. With `ACLORA_TRACKING=off` there is no such process.
    """
    if os.environ.get("ACLORA_TRACKING") == "off":
        yield
        return
    command = [
        sys.executable,
        "-m",
        "aclora.tracking.live",
        style,
        run_fingerprint or "",
        train_fingerprint,
        str(history),
    ]
    try:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    except OSError as error:
        say(style, error)
        yield
        return
    ending = "FAILED"
    try:
        yield
        ending = "FINISHED"
    finally:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            child.communicate(ending.encode(), timeout=GRACE + 1)
        child.kill()
        if child.wait() not in (0, SAID):
            say(style, "it took too long" if child.returncode < 0 else f"exit status {child.returncode}")


def say(style: str, why: object, file=None) -> None:
    """The one line about tracking that does not work."""
    told = (
        f"tracking: {' '.join(str(why).split())}; training goes on, `aclora publish {style}` fills in what is missing"
    )
    print(f"\n{told}", file=file or sys.stderr, flush=True)


def follow(style: str, run_fingerprint: str, train_fingerprint: str, history: Path) -> None:
    """Send what `history` holds and what is appended to it until standard input ends; its text is the run's status."""
    from aclora.project import fingerprint
    from aclora.tracking import store

    run_fingerprint = run_fingerprint or fingerprint.run_fingerprint(style)
    ending, ended = [], threading.Event()
    threading.Thread(target=_wait_for_end, args=(ending, ended), daemon=True).start()
    with store.reached(MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR="1") as client:
        run = store.run_of(client, style, run_fingerprint, train_fingerprint)
        run_id = run.info.run_id
        client.update_run(run_id, status="RUNNING")
        sent = set(store.logged(client, run, list(run.data.metrics)))
        lines = Tail(history)
        while True:
            last = ended.is_set()
            found = [(key, line["epoch"], v) for line in lines.new() for key, v in records.points(line).items()]
            points = {(key, epoch): v for key, epoch, v in found if (key, epoch) not in sent}
            started = time.process_time()
            if points:
                store.log_series(client, run_id, points)
                sent |= points.keys()
            if last:
                break
            ended.wait(max(1, 100 * (time.process_time() - started)))  # a hundredth of one core at most
        client.set_terminated(run_id, ending[0])


class Tail:
    """The lines of a growing file; where it was cut, from its beginning again."""

    def __init__(self, path: Path):
        self.path, self.position = path, 0

    def new(self) -> list[dict]:
        """The whole lines since the last call, parsed."""
        if not self.path.exists():
            return []
        if self.path.stat().st_size < self.position:
            self.position = 0
        with self.path.open("rb") as file:
            file.seek(self.position)
            text, end, _ = file.read().rpartition(b"\n")
        self.position += len(text + end)
        return [json.loads(line) for line in text.splitlines()]


def _wait_for_end(ending, ended):
    """Until the training closes the pipe, or is gone; then `GRACE` seconds are left."""
    ending.append(sys.stdin.read() or "KILLED")
    signal.alarm(GRACE)
    ended.set()


def _main():
    os.nice(19)
    for sign in (signal.SIGINT, signal.SIGTERM):  # it ends when the training does
        signal.signal(sign, signal.SIG_IGN)
    said = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # mlflow's own messages
    style, *fingerprints, history = sys.argv[1:]
    try:
        follow(style, *fingerprints, Path(history))
    except Exception as error:
        say(style, error, said)
        os._exit(SAID)
    os._exit(0)  # at once: the training waits


if __name__ == "__main__":
    _main()

"""A child process whose output is a run's log, and which never outlives the run."""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

TICK = 2.0  # seconds between two looks at what a child is doing
GRACE = 8.0  # seconds that a child has to end itself before it is killed
PR_SET_PDEATHSIG = 1
STOPPED = threading.Event()
ORPHANED = threading.Event()
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Linux: SIGTERM for this process as soon as its parent is gone, however that ended. Elsewhere nothing."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_parent() -> None:
    """For a flow: SIGTERM when its worker is gone, and whatever becomes of that signal, the end of all children.

    Prefect makes an exception of the signal; one that is raised while a library catches everything is lost.
    """
    die_with_parent()
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(TICK / 2)
        ORPHANED.set()
        for child in psutil.Process().children():
            end(child.pid)

    threading.Thread(target=watch, daemon=True).start()


def _not_orphaned():
    """Raise in the flow what the lost signal would have raised."""
    if ORPHANED.is_set():
        signal.raise_signal(signal.SIGTERM)


def environment() -> dict[str, str]:
    """Of a child: this Python's commands first on the path, stages that end with whoever started them."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    # Threads that spin while they wait make a training beside a server and its workers several times slower.
    patient = {"OMP_WAIT_POLICY": "PASSIVE"}
    return patient | os.environ | {"PATH": path, "ACLORA_DIE_WITH_PARENT": "1", "PYTHONUNBUFFERED": "1"}


def dvc(*args: str, log: Callable[[str], None], tick: Callable[[], None] | None = None) -> tuple[int, list[str]]:
    """Run dvc, which waits for the repository's lock where another one holds it; exit status and lines of output.

    Each line goes to `log` as it comes, of a progress bar what it showed last; `tick` is called every 2 seconds.
    Whatever ends this function, an exception of a cancelled run too, ends dvc and all that it started. Where a dvc that
    was killed has left half of its lock file, that is removed and dvc started again.
    """
    status, lines = _dvc(args, log, tick)
    if status and any("RWLock-file" in line and "corrupted" in line for line in lines):
        mend_lock(log)
        status, lines = _dvc(args, log, tick)
    return status, lines


def mend_lock(log: Callable[[str], None]) -> None:
    """Where a dvc that was killed has left half of its table of locks, remove that: no other dvc would start."""
    from dvc.lock import make_lock

    table = Path(".dvc/tmp/rwlock")
    if not table.exists():
        return
    with make_lock(f"{table}.lock", tmp_dir=str(table.parent)):  # nobody is writing it
        try:
            json.loads(table.read_text(encoding="utf-8"))
        except FileNotFoundError:  # another run was faster
            return
        except ValueError:
            table.unlink()
            log(f"a dvc that was killed had left half of {table}: removed")


def _dvc(args, log, tick):
    _not_orphaned()
    if STOPPED.is_set():
        raise RuntimeError("the run is ending: dvc is not started any more")
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *args]
    lines = []

    def say(raw: bytes) -> None:
        line = raw.decode("utf-8", "replace").rstrip().rsplit("\r", 1)[-1].rstrip()
        if line:
            lines.append(line)
            log(line)

    # The child stays in this process's group and session: what cancels a run signals the group.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        preexec_fn=die_with_parent,
    ) as child:
        try:
            _follow(child, say, tick or (lambda: None))
            child.wait()
            _not_orphaned()
            return child.returncode, lines
        finally:
            if child.poll() is None:
                end(child.pid)


def _follow(child, say, tick):
    pending, next_tick = b"", time.monotonic() + TICK
    while True:
        readable, _, _ = select.select([child.stdout], [], [], max(0.0, next_tick - time.monotonic()))
        if readable:
            chunk = os.read(child.stdout.fileno(), 65536)
            *whole, pending = (pending + chunk).split(b"\n")
            for line in whole:
                say(line)
            if not chunk:
                say(pending)
                return
        if time.monotonic() >= next_tick:
            tick()
            next_tick = time.monotonic() + TICK


def end(pid: int) -> None:
    """End a process and its descendants: asked first, killed after 8 seconds. One that is gone is no error.

    The parent goes first: a dvc that sees its stage end begins to write, and must not be stopped half-way.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.terminate()
        _, left = psutil.wait_procs(family, timeout=GRACE)
        for member in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


@contextlib.contextmanager
def ending_all() -> Iterator[None]:
    """An exception that leaves this block ends what other threads' `dvc` have started, and starts no more."""
    STOPPED.clear()
    try:
        yield
    except BaseException:
        STOPPED.set()
        for child in psutil.Process().children():
            end(child.pid)
        raise


def reason(lines: list[str]) -> str:
    """Of a failed command's output the line that says why: the stage's own `error: …`, else dvc's, else the last."""
    for prefix in ("error: ", "ERROR: "):
        said = [line for line in lines if line.startswith(prefix)]
        if said:
            return said[-1 if prefix == "error: " else 0].removeprefix(prefix)
    return lines[-1] if lines else "it said nothing"

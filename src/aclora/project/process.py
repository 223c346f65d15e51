"""Child processes: their output line by line, and their end together with whoever started them."""

from aclora.core.stage import die_with_parent

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

TICK = 2.0  # seconds between two looks at what a child is doing
GRACE = 8.0  # seconds that a child has to end itself before it is killed
PATIENCE = 4.0  # seconds that a child has after Ctrl-C, which it got too, before it is told to end
STOPPED = threading.Event()
ORPHANED = threading.Event()


# What a command needs of its caller's environment: where things are, how threads and GPUs are used. No key, no token.
HARMLESS = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TERM|COLUMNS|TMPDIR|TEMP|TMP|VIRTUAL_ENV|PWD"
    r"|(LC|LD|PYTHON|XDG|CUDA|NVIDIA|CUBLAS|OMP|MKL|OPENBLAS|MALLOC|PYTORCH|ACLORA)_?[A-Z0-9_]*"
    r"|HF_HOME|HF_HUB_CACHE|HF_HUB_OFFLINE|DVC_SITE_CACHE_DIR"
)


def without_secrets() -> dict[str, None]:
    """For `env` of `run`: all of this process's environment removed that is not known to be harmless."""
    return {name: None for name in os.environ if not HARMLESS.fullmatch(name)}


def environment() -> dict[str, str]:
    """A child's environment: this Python's commands first on the path, and stages that end with their parent."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path, "ACLORA_DIE_WITH_PARENT": "1", "PYTHONUNBUFFERED": "1"}


def run(
    command: Sequence[str],
    log: Callable[[str], None] | None,
    tick: Callable[[], None] | None = None,
    folder: Path = Path("."),
    env: Mapping[str, str | None] | None = None,
    echo: Callable[[bytes], None] | None = None,
) -> tuple[int, list[str]]:
    """Run a command in `folder`; its exit status and the lines of its output and errors.

    Each line goes to `log` as it arrives, of a progress bar its last state; `echo` gets the bytes themselves, bars
    included. Without `log` the output goes where this process's own goes, and no lines are returned. `tick` is called
    every 2 seconds while there is a `log`. `env` is added to `environment()`, None removes. Whatever ends this
    function, including the exception of a cancelled run, also ends the command and everything that it started; after
    Ctrl-C, which reaches them too, they have 4 seconds to end by themselves.
    """
    _raise_if_ending(command)
    lines = []

    def emit(raw: bytes) -> None:
        line = raw.decode("utf-8", "replace").rstrip().rsplit("\r", 1)[-1].rstrip()
        if line and log:
            lines.append(line)
            log(line)

    # The child stays in this process's group and session: whatever cancels a run signals the group.
    with subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if log else None,
        stderr=subprocess.STDOUT if log else None,
        env={name: value for name, value in (environment() | dict(env or {})).items() if value is not None},
        preexec_fn=die_with_parent,
    ) as child:
        try:
            if log:
                _follow(child, emit, tick or (lambda: None), echo)
            child.wait()
            # whoever ended the child may have collected its exit status: then it would look like success here
            _raise_if_ending(command)
            return child.returncode, lines
        except KeyboardInterrupt:
            if log:
                _follow(child, emit, lambda: None, echo, PATIENCE)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE)
            raise
        finally:
            if child.poll() is None:
                end(child.pid)


def _follow(child, emit, tick, echo=None, seconds=float("inf")):
    """Pass the child's output on until it ends, or for so many seconds."""
    pending, next_tick = b"", time.monotonic() + TICK
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        readable, _, _ = select.select([child.stdout], [], [], max(0.0, min(next_tick, end) - now))
        if readable:
            chunk = os.read(child.stdout.fileno(), 65536)
            if echo:
                echo(chunk)
            *complete, pending = (pending + chunk).split(b"\n")
            for line in complete:
                emit(line)
            if not chunk:
                emit(pending)
                return
        if time.monotonic() >= next_tick:
            tick()
            next_tick = time.monotonic() + TICK


def reason(lines: list[str]) -> str:
    """The line of a failed command's output that says why.

    That is the last `error: …` (a stage's or git's), else the first `ERROR: …` (DVC's), else the first `fatal: …`
    (git's), else the last line.
    """
    for prefix, which in (("error: ", -1), ("ERROR: ", 0), ("fatal: ", 0)):
        if found := [line for line in lines if line.startswith(prefix)]:
            return found[which].removeprefix(prefix)
    return lines[-1] if lines else "it failed without a message"


def end(pid: int) -> None:
    """End a process and its descendants: SIGTERM, and SIGKILL after 8 seconds. A process that is gone is no error.

    The parent goes first: a dvc that sees its stage end begins to write, and must not be stopped half-way.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.terminate()
        _, alive = psutil.wait_procs(family, timeout=GRACE)
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


@contextlib.contextmanager
def ending_all() -> Iterator[None]:
    """An exception that leaves this block ends the children that other threads started, and prevents new ones."""
    STOPPED.clear()
    try:
        yield
    except BaseException:
        STOPPED.set()
        _end_children()
        raise


def end_with_parent() -> None:
    """For a flow: SIGTERM when its worker is gone and, whatever becomes of that signal, the end of all children.

    Prefect turns the signal into an exception; raised inside a library that catches everything, it is lost.
    """
    die_with_parent()
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(TICK / 2)
        ORPHANED.set()
        _end_children()

    threading.Thread(target=watch, daemon=True).start()


def _end_children():
    for child in psutil.Process().children():
        end(child.pid)


def _raise_if_ending(command):
    if ORPHANED.is_set():
        signal.raise_signal(signal.SIGTERM)  # which raises in the flow what the lost signal would have raised
    if STOPPED.is_set():
        raise RuntimeError(f"the run is ending: {' '.join(command)} does not complete")

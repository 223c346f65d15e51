"""What a stage does before it imports anything heavy: how its threads wait, and how it ends when it is told to.

A stage imports `aclora.core.stage` first of all, and that imports this module first (pyproject.toml tells ruff so):
torch's threads read the environment when torch is loaded, and Ctrl-C may come while it is.
"""

import os
import signal
import sys
from types import FrameType

# Threads that spin for long while they wait make a training beside other work several times slower, and threads that
# sleep at once make one on an idle machine slower. A short spin is near the better of the two (bench/shared.py). Only
# GNU's library, which torch has on Linux, can be told how short.
if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
    os.environ |= {"GOMP_SPINCOUNT": "10000"} if sys.platform == "linux" else {"OMP_WAIT_POLICY": "PASSIVE"}

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


class Interrupted(KeyboardInterrupt):
    """A signal told this process to end; `text` says what stands of its work, after a semicolon."""

    def __init__(self, number: int, text: str = ""):
        super().__init__(number, text)
        self.number, self.text = number, text

    @property
    def status(self) -> int:
        """The exit status: 128 and the signal's number, as shells have it."""
        return 128 + self.number


class _Watch:
    """Whose signals these are and its name, whether the work can be unwound, and whether the end has been said."""

    pid = 0
    name = ""
    unwinds = False
    said = False


def watch_signals(name: str = "") -> None:
    """Ctrl-C, SIGTERM and SIGHUP end this process, `name` or a stage, in one line and without a traceback.

    Until `unwind` is called it ends on the spot. A signal that is ignored stays ignored, as `nohup` wants it.
    """
    _Watch.pid, _Watch.name = os.getpid(), name or _stage_name()
    for number in WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


def unwind() -> None:
    """From now on the first signal raises `Interrupted`, so that half-written files go; a second ends on the spot."""
    _Watch.unwinds = True


def finish() -> None:
    """The work is done: what is left is Python's own end, and no signal may make a failure of it."""
    for number in WORDS:
        if signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.SIG_IGN)


def say(number: int, text: str = "") -> None:
    """Print the one line, once."""
    if not _Watch.said:
        _Watch.said = True
        line = f"{WORDS[signal.Signals(number)]}: {_Watch.name}{text}; run again to go on\n"
        os.write(2, line.encode())  # print may itself have been interrupted


def _stage_name() -> str:
    """The stage's name in DVC, such as `generate@oil`; where DVC did not start it, the name of its file."""
    file = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    return os.environ.get("DVC_STAGE") or "@".join([_module().removeprefix("stages.") or file, *sys.argv[1:2]])


def _on_signal(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _Watch.pid:  # a fork of the stage: it ends as any process does
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    elif _Watch.unwinds:
        _Watch.unwinds = False
        raise Interrupted(number)
    else:
        say(number)
        os._exit(128 + number)


def _module():
    """What `python -m` runs, or nothing."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec.name if spec else ""


if _module().startswith("stages."):
    watch_signals()

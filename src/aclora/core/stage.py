"""What every stage needs: its style's name, errors in one line, and an end in one line when it is told to end."""

from aclora.core.startup import Interrupted, finish, say, unwind, watch_signals

import argparse
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator

from aclora.core import params
from aclora.core.errors import InputError, did_you_mean
from aclora.core.failures import one_line

PR_SET_PDEATHSIG = 1  # of prctl(2)
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Linux: SIGTERM for this process as soon as its parent is gone, however that ended. Elsewhere nothing."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End this process with one line on stderr where the block cannot do its work.

    Exit status 1 after `InputError`, after an error of the system about a file or a disk, and where memory runs out;
    128 and the signal's number after Ctrl-C (130), SIGTERM (143) and SIGHUP. Any other exception is a fault of the code
    and keeps its traceback.
    """
    watch_signals()
    try:
        unwind()
        yield
        finish()
    except Interrupted as interrupted:
        say(interrupted.number, interrupted.text)
        sys.exit(interrupted.status)
    except Exception as error:
        line = one_line(error, os.path.splitext(os.path.basename(sys.argv[0]))[0])
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)


def run(main: Callable[[str], None], description: str | None) -> None:
    """Call `main(style)` with the style named on the command line, inside of `one_line_errors`.

    With ACLORA_DIE_WITH_PARENT in the environment the stage ends when its parent does, however that ends (Linux): a
    killed worker leaves no training behind.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("style", help="an entry under `styles` in params.yaml")
    style = parser.parse_args().style

    def main_of_style():
        known = params.styles()
        if style not in known:
            raise InputError(f"style {style!r} is unknown; {did_you_mean(style, known)}")
        main(style)

    _run(main_of_style)


def run_project(main: Callable[[], None], description: str | None) -> None:
    """Call `main()` of a stage that no style has, as `run` calls the others'."""
    argparse.ArgumentParser(description=description).parse_args()
    _run(main)


def _run(main):
    if os.environ.get("ACLORA_DIE_WITH_PARENT"):
        die_with_parent()
    with one_line_errors():
        main()

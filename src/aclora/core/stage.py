"""What every stage needs: its style's name, and errors in one line."""

import argparse
import ctypes
import errno
import os
import signal
import sys
from collections.abc import Callable

from aclora.core import params
from aclora.core.errors import InputError, did_you_mean

PR_SET_PDEATHSIG = 1  # of prctl(2)
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Linux: SIGTERM for this process as soon as its parent is gone, however that ended. Elsewhere nothing."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def run(main: Callable[[str], None], description: str | None) -> None:
    """Call `main(style)` with the style named on the command line, as `run_project` calls a main without one."""
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
    """Call `main()`; an `InputError` ends it in one line.

    So does a full disk. With ACLORA_DIE_WITH_PARENT in the environment the stage ends when its parent does, however
    that ends (Linux): a killed worker leaves no training behind.
    """
    argparse.ArgumentParser(description=description).parse_args()
    _run(main)


def _run(main):
    if os.environ.get("ACLORA_DIE_WITH_PARENT"):
        die_with_parent()
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(
            f"error: {error.filename or 'a file'}: no space left on its disk: free some, then repeat", file=sys.stderr
        )
        sys.exit(1)

"""How a command ends where it cannot do its work, and how its examples are written."""

from aclora.core.startup import Interrupted, say

import contextlib
import sys
from collections.abc import Iterator

import typer

from aclora.core.errors import InputError
from aclora.core.failures import one_line

# What an extra of pyproject.toml brings, as it is imported.
EXTRAS = {
    "dvc": "pipeline",
    "matplotlib": "pipeline",
    "vl_convert": "pipeline",
    "mlflow": "tracking",
    "pandas": "tracking",
    "sqlalchemy": "tracking",
}


@contextlib.contextmanager
def input_errors(status: int) -> Iterator[None]:
    """End with exit status `status` after one line on stderr where the input is unusable; a decorator of commands.

    That is where `InputError` is raised, where a file cannot be read or written, and where a package of an extra is not
    installed. After a signal the exit status is 128 and its number.
    """
    try:
        yield
    except Interrupted as interrupted:
        say(interrupted.number)
        raise typer.Exit(interrupted.status) from None
    except BrokenPipeError:  # typer's, for `aclora … | head`
        raise
    except (InputError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        print(f"error: {package} is missing: install aclora with its extra {EXTRAS[package]!r}", file=sys.stderr)
    else:
        return
    raise typer.Exit(status)


def examples(*lines: str) -> str:
    """The end of a command's help: its examples, one a line and never wrapped (\\b is typer's mark for that)."""
    return "\n".join(["\b", "examples:", *(f"  {line}" for line in lines)])

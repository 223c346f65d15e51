"""The `aclora` command: the groups of its commands, and what they have in common."""

import sys
import threading
from typing import Annotated

import typer

from aclora import __version__
from aclora.cli import lora, run, runs, tracking
from aclora.cli.errors import examples, input_errors
from aclora.core import startup

app = typer.Typer(
    name="aclora",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode=None,  # rich would double the time of --help
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"aclora {__version__}")
        raise typer.Exit


@app.callback(epilog=examples("aclora check", "aclora compare main my-experiment", "aclora export --help"))
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Tools around the pipeline that `dvc repro` runs.

    `aclora --install-completion` sets up completion with Tab.
    """


@app.command(epilog=examples("aclora check"))
@input_errors(status=1)
def check(
    styles: Annotated[
        list[str] | None, typer.Argument(metavar="STYLE", help="Look at these styles only; without any, at all.")
    ] = None,
) -> None:
    """Check params.yaml, pictures, captions and prompts.

    Reads what a run would read, and prints what each style would train on.
    """
    from aclora.check.project import check as check_inputs
    from aclora.project.dvc import mend_lock

    report = check_inputs(styles or None)
    mend_lock(print)
    run.show(report)


for group in (run.app, runs.app, tracking.app, lora.app):
    app.add_typer(group)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 or 2 after an error, 130 after Ctrl-C, 143 after SIGTERM.

    Without `arguments` those of the process are used, and its signals are handled.
    """
    if arguments is None and threading.current_thread() is threading.main_thread():
        startup.watch_signals(" ".join(["aclora", *sys.argv[1:2]]))
        startup.unwind()
    try:
        app(arguments, prog_name="aclora")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0

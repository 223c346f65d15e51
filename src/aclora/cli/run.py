"""`aclora run`: everything from the check to the scores."""

import os
import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from aclora.cli.completion import known_styles
from aclora.cli.errors import examples, input_errors

if TYPE_CHECKING:
    from aclora.check.project import Report

app = typer.Typer()


@app.command(epilog=examples("aclora run", "aclora run watercolor"))
@input_errors(status=1)
def run(
    styles: Annotated[
        list[str] | None,
        typer.Argument(metavar="STYLE", help="Without any, all are run.", autocompletion=known_styles),
    ] = None,
) -> None:
    """Check, run what has changed, and show the scores.

    What a killed run left is mended first. The exit status is 0 only if everything is up to date and in DVC's cache.
    New results are published to MLflow unless ACLORA_TRACKING=off.
    """
    from aclora.check.project import check
    from aclora.core import params
    from aclora.core.errors import InputError
    from aclora.project import pipeline
    from aclora.report.scores import scores_table

    chosen = params.chosen_styles(styles)
    show(check(chosen))
    pipeline.prepare(print)
    sys.stdout.flush()
    if sys.stdout.isatty():
        os.environ.setdefault("TQDM_NCOLS", str(shutil.get_terminal_size().columns))  # the bars go through a pipe
    names = pipeline.stages_of(chosen if styles else None)
    status, lines = pipeline.run_stages(names, log=lambda line: None, echo=_pass_on)
    if status:
        raise InputError(pipeline.reason(lines))
    if pipeline.did_something(lines):
        _publish(chosen)
    for style in chosen:
        print(f"\n{scores_table(style)}")


def show(report: "Report") -> None:
    """Print what was looked at: warnings on stderr, then a line for each style."""
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print("\n".join(report.lines))


def _publish(styles: list[str]) -> None:
    """Show the runs in MLflow; whatever fails there is a warning, because the results are in files."""
    if os.environ.get("ACLORA_TRACKING") == "off":
        return
    try:
        from aclora.tracking.publish import publish

        for address in publish(styles).values():
            print(f"MLflow: {address}")
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        print(f"warning: MLflow did not get the results, `aclora publish` sends them: {why}", file=sys.stderr)


def _pass_on(output: bytes) -> None:
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()

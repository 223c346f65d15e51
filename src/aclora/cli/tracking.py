"""The commands around MLflow: publish, reproduce. Both end with status 2 where something cannot be used."""

from pathlib import Path
from typing import Annotated

import typer

from aclora.cli.completion import evaluated_styles
from aclora.cli.errors import examples, input_errors

app = typer.Typer()


@app.command(epilog=examples("aclora publish watercolor", "MLFLOW_TRACKING_URI=http://server:5000 aclora publish"))
@input_errors(status=2)
def publish(
    styles: Annotated[
        list[str] | None,
        typer.Argument(metavar="STYLE", help="Without any, all are published.", autocompletion=evaluated_styles),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Publish every style, the same as naming none.")] = False,
) -> None:
    """Show finished runs in MLflow; publishing again changes nothing.

    The store is ./mlflow.db unless MLFLOW_TRACKING_URI names another.
    """
    from aclora.core import params
    from aclora.tracking import store
    from aclora.tracking.publish import publish as publish_runs

    chosen = [] if every else styles
    for style, address in publish_runs(chosen or params.styles()).items():
        print(f"{style}: {address}")
    if store.uri().startswith("sqlite"):
        print(f"in {store.uri()}; `make ui` shows it")


@app.command(epilog=examples("aclora reproduce watercolor@champion", "aclora reproduce 3f2a91c0 --into ../again"))
@input_errors(status=2)
def reproduce(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's id, style@alias, or the beginning of a fingerprint.")
    ],
    into: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep the work tree there; otherwise it is removed.")
    ] = None,
) -> None:
    """Train a run from MLflow again and compare the adapters.

    The work is done apart from your files. The exit status is 0 if the adapters are identical and 1 if not.
    """
    from aclora.tracking.reproduce import reproduce as train_again

    raise typer.Exit(0 if train_again(run, into) else 1)

"""The commands around MLflow: publish, reproduce. Both end with status 2 where something cannot be used."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from aclora.cli.completion import evaluated_styles
from aclora.cli.errors import examples, input_errors

app = typer.Typer()


@app.command(
    epilog=examples(
        "aclora publish watercolor",
        "aclora publish --experiments",
        "aclora publish watercolor --experiment static --experiment zero",
        "aclora publish --revision main~1",
        "MLFLOW_TRACKING_URI=http://server:5000 aclora publish",
    )
)
@input_errors(status=2)
def publish(
    styles: Annotated[
        list[str] | None,
        typer.Argument(metavar="STYLE", help="Without any, all are published.", autocompletion=evaluated_styles),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Publish every style, the same as naming none.")] = False,
    experiments: Annotated[
        bool, typer.Option("--experiments", help="Publish all of DVC's experiments instead of the workspace.")
    ] = False,
    experiment: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Publish this experiment instead of the workspace; may be repeated."),
    ] = None,
    revision: Annotated[
        list[str] | None,
        typer.Option(metavar="REV", help="Publish this git revision instead of the workspace; may be repeated."),
    ] = None,
) -> None:
    """Show finished runs in MLflow; publishing again changes nothing.

    Experiments and revisions come from git and DVC's cache; your files stay as they are. The store is ./mlflow.db
    unless MLFLOW_TRACKING_URI names another.
    """
    from aclora.core import params
    from aclora.tracking import revisions, store

    chosen = None if every else styles
    failed = False
    if experiments or experiment or revision:
        found = revisions.experiments() if experiments else revisions.experiments(experiment) if experiment else []
        found += [revisions.revision(name) for name in revision or ()]
        for done in revisions.publish_revisions(found, chosen):
            failed = failed or bool(done.error)
            _show(done)
        if not found:
            print("there are no experiments: `dvc exp run` makes them")
    else:
        from aclora.tracking.publish import publish as publish_runs

        for style, address in publish_runs(chosen or params.styles()).items():
            print(f"{style}: {address}")
    if store.uri().startswith("sqlite"):
        print(f"in {store.uri()}; `make ui` shows it")
    if failed:
        raise typer.Exit(1)


def _show(done) -> None:
    """The line about one style of one revision."""
    what = " ".join(filter(None, (done.revision, done.style)))
    if done.error:
        print(f"error: {what}: {done.error}", file=sys.stderr, flush=True)
    else:
        print(f"{what}: {done.address or done.note}", flush=True)


@app.command(epilog=examples("aclora reproduce watercolor@champion", "aclora reproduce 3f2a91c0 --into ../again"))
@input_errors(status=2)
def reproduce(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's id, style@alias, or the beginning of a fingerprint.")
    ],
    into: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep the work tree there; otherwise it is removed.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: you trust who wrote the run to MLflow.")] = False,
) -> None:
    """Train a run from MLflow again and compare the adapters.

    It shows the commit and the changes that MLflow holds, and asks: they are code that runs as you. The work is done
    apart from your files. The exit status is 0 if the adapters are identical and 1 if not.
    """
    from aclora.tracking.reproduce import reproduce as train_again

    def agree() -> bool:
        return yes or (sys.stdin.isatty() and typer.confirm("Run this code here?"))

    raise typer.Exit(0 if train_again(run, into, agree) else 1)

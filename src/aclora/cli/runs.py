"""The commands on finished runs: scores, compare, plots."""

from pathlib import Path
from typing import Annotated

import typer

from aclora.cli.completion import evaluated_styles
from aclora.cli.errors import examples, input_errors

RUN = "A git revision, a DVC experiment, or a folder (a project's or its metrics)."

app = typer.Typer()


@app.command(epilog=examples("aclora scores"))
@input_errors(status=1)
def scores() -> None:
    """Show the scores of every style, adapter beside base model."""
    from aclora.core import params
    from aclora.report.scores import scores_table

    for style in params.styles():
        print(f"\n{scores_table(style)}")


@app.command(
    epilog=examples(
        "aclora compare main my-experiment",
        "aclora compare main my-experiment --style watercolor",
        "aclora compare ../other-project . --style watercolor",
    )
)
@input_errors(status=1)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", show_default=False, help=RUN)],
    b: Annotated[str, typer.Argument(metavar="B", show_default=False, help="The same, for the second run.")],
    style: Annotated[
        str | None, typer.Option(help="Compare this style only.", autocompletion=evaluated_styles, metavar="STYLE")
    ] = None,
) -> None:
    """Compare two runs picture by picture, with intervals."""
    from aclora.report.comparison import comparison_texts

    for text in comparison_texts(a, b, style):
        print(f"\n{text}")


@app.command(epilog=examples("aclora plots main my-experiment"))
@input_errors(status=1)
def plots(
    revisions: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="Git revisions or DVC experiments.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page's folder.", metavar="FOLDER")] = Path("dvc_plots"),
) -> None:
    """Draw DVC's plots as one page that needs no network.

    One run is shown beside the workspace, several beside one another.
    """
    from aclora.report.dvc_plots import write

    print(write(revisions or [], out))

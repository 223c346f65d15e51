"""Two runs side by side, style by style: as objects for a notebook and as text for the terminal."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aclora.core.errors import InputError, did_you_mean
from aclora.evaluation.compare import Row, Run, compare, styles_of
from aclora.evaluation.evaluate import project_figures
from aclora.metrics.contract import scores
from aclora.report.tables import LABEL_WIDTH, interval_text


@dataclass(frozen=True)
class Comparison:
    """One style of two runs. `print` it for the table that `aclora compare` shows.

    `rows`: one for each score that both have, with `score`, `a`, `b`, `interval` (95 %, of a − b, where the score is a
    mean over pictures) and `change` (relative to |b|, positive where a is better). `improvement`: the average change of
    the four figures that the AC-LoRA paper averages. `left_out`: the figures that it leaves out, by label, and why.
    """

    style: str
    name_a: str
    name_b: str
    a: Run = field(repr=False)
    b: Run = field(repr=False)
    rows: list[Row] = field(repr=False)
    improvement: float | None
    left_out: dict[str, str]

    def __str__(self) -> str:
        about = self.a.about
        lines = [
            f"{self.style}: A = {self.name_a} ({self.a.method}), B = {self.name_b} ({self.b.method})",
            f"  {about['counts']['generated']} pairs of prompt and seed against {about['reference']['what']}\n",
            f"  {'':{LABEL_WIDTH}}{'A':>9}{'B':>9}{'A − B':>9}   {'95 % interval':18}{'change':>8}",
        ]
        for row in self.rows:
            interval = interval_text(row.interval, "+") if row.interval else ""
            change = f"{row.change:+8.1%}" if row.change is not None else ""
            values = f"{row.a:9.3f}{row.b:9.3f}{row.a - row.b:+9.3f}"
            lines.append(f"  {row.score.label:{LABEL_WIDTH}}{values}   {interval:18}{change}".rstrip())
        if self.improvement is not None:
            four = [r.score.figure for r in self.rows if r.score.role == "adapter" and r.score.figure.in_average]
            averaged = ", ".join(figure.label for figure in four if figure.label not in self.left_out)
            lines.append(f"\n  average improvement of A over B ({averaged}): {self.improvement:+.1%}")
        lines += [f"  left out of the average: {label}, {why}" for label, why in self.left_out.items()]
        lines += [
            "  change is relative to |B|, positive where A is better; a figure without an interval is no mean over",
            "  pictures: only runs with other seeds show how far it scatters",
        ]
        return "\n".join(lines)


def compare_runs(a: str | Path, b: str | Path, style: str | None = None) -> dict[str, Comparison]:
    """Compare two runs in every style that both have, or in `style` alone; the result is by style.

    A run is a folder (a project's, or its `metrics`), or in the current project a git revision or the name of a DVC
    experiment:

        for comparison in aclora.compare("main", "my-experiment").values():
            print(comparison)

    Raises `InputError` where a run is not found, no style is in both, or their figures cannot be compared because
    prompts, seeds, reference pictures or encoders differ.
    """
    return {comparison.style: comparison for comparison in _comparisons(str(a), str(b), style)}


def comparison_texts(a: str, b: str, style: str | None = None) -> Iterator[str]:
    """The tables of `compare_runs` and, unless one `style` was chosen, the styles that only one of the runs has."""
    yield from map(str, _comparisons(a, b, style))
    only_one = sorted(set(styles_of(a)) ^ set(styles_of(b)))
    if only_one and style is None:
        yield f"evaluated in only one of the two: {', '.join(only_one)}"


def _comparisons(a, b, style):
    ours, theirs = styles_of(a), styles_of(b)
    shared = [name for name in ours if name in theirs]
    if not shared or (style is not None and style not in shared):
        shown = "…" if style is None else style
        raise InputError(f"style {shown!r} was not evaluated in both; {did_you_mean(style or '', shared)}")
    figures = project_figures()
    for name in shared if style is None else [style]:
        run_a, run_b = ours[name](), theirs[name]()
        rows, improvement, left_out = compare(run_a, run_b, scores(figures))
        reasons = {figures[key].label: why for key, why in left_out.items()}
        yield Comparison(name, a, b, run_a, run_b, rows, improvement, reasons)

"""The scores of a style's last run, as text."""

from pathlib import Path

from aclora.core.hub import trained_on
from aclora.evaluation.evaluate import project_figures
from aclora.metrics.contract import key_of
from aclora.metrics.contract import scores as every_score
from aclora.project import evaluations
from aclora.report.tables import LABEL_WIDTH, interval_text


def scores_table(style: str, metrics: Path = Path("metrics")) -> str:
    """What `metrics`/`style` says, a line for each figure: base model, adapter, and the 95 % intervals.

    Raises `InputError` where the style has not been evaluated, and where its files are damaged.
    """
    folder = metrics / style
    scores = evaluations.scores(*evaluations.text_of(folder / "scores.json"))
    about = evaluations.about(*evaluations.text_of(folder / "evaluation.json"))
    counts, reference, figures = about["counts"], about["reference"], about["figures"]
    lines = [
        f"{style}: {counts['generated']} pictures, {counts['prompts']} prompts, against {reference['what']}",
        f"  {'':{LABEL_WIDTH}}{'base':>9}{'adapter':>9}   {'95 % interval':19}{'of adapter − base'}",
    ]
    known = project_figures()
    for key, score in every_score(known).items():
        if scores.get(key) is None or score.role not in ("adapter", "without_trigger", "reference"):
            continue
        base = scores.get(key_of(key, "base"))
        own, difference = (figures.get(k, {}).get("interval") for k in (key, key_of(key, "difference")))
        values = f"{'' if base is None else format(base, '.3f'):>9}{scores[key]:9.3f}"
        intervals = f"{interval_text(own) if own else '':19}{interval_text(difference, '+') if difference else ''}"
        lines.append(f"  {score.label:{LABEL_WIDTH}}{values}   {intervals}".rstrip())
    if not reference["held_out"]:
        rewarding = [f.label.partition(",")[0] for f in known.values() if f.against == "reference"]
        lines.append(f"  the reference is the training pictures: {', '.join(rewarding)} reward copies of them")
    encoders = sorted({f["encoder"] for f in figures.values()})
    lines.append(f"  encoders: {', '.join(encoders)}; what each figure means: docs/guides/judge.md")
    lines += _what_they_know([encoder.rpartition(" ")[0] for encoder in encoders])
    lines.append(f"  pictures: {folder}/contact_sheet.png · adapter: models/adapters/{style}")
    return "\n".join(lines)


def _what_they_know(folders):
    """A line for each thing that encoders' cards say they were trained on."""
    known = {}
    for folder in folders:
        if said := trained_on(folder):
            known.setdefault(said, []).append(Path(folder).name)
    return [
        f"  {', '.join(names)} were trained on {said}: of other pictures their figures say little"
        for said, names in known.items()
    ]

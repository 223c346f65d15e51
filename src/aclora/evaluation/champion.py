"""The rule by which a new adapter takes the champion's place: pairs, intervals and a margin."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from aclora.core.errors import InputError


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger wins, why in one line, and the figures that were looked at, a row each."""

    promote: bool
    why: str
    figures: list[dict]


def decide(challenger: Path, champion: Path, margin: float) -> Verdict:
    """Compare two metrics folders of one style (scores.json, evaluation.json, per_image.csv, per_reference.csv).

    The challenger *gains* where the 95 % interval of the paired difference (CLIP score, DINO score, ImageReward,
    drift; the same prompts and seeds) lies wholly on the better side of zero. It *loses* where such a figure is worse
    by more than `margin` of the champion's value and its interval leaves zero out; and, of figures without an interval,
    where the share of copies rises by more than `margin` or KID rises by more than `margin` of the base model's KID:
    DINO's score alone rewards copies and collapse. It takes the place if it gains somewhere and loses nowhere. What
    does not compare (other prompts, another reference or encoder) leaves the champion in its place.
    """
    from aclora.evaluation.compare import compare
    from aclora.evaluation.evaluate import FIGURES

    new, old = _read(challenger), _read(champion)
    try:
        rows, _, _ = compare(new, old)
    except InputError as error:
        return Verdict(False, f"{error}; the champion stays, move the alias by hand if it is out of date", [])
    figures, gains, losses = [], [], []
    for row in rows:
        better = FIGURES[row.name].better
        gain = better * (row.a - row.b)
        judged = ""
        if row.interval:
            low, high = sorted(better * end for end in row.interval)
            if low > 0:
                judged = "gain"
            elif high < 0 and -gain > margin * abs(row.b):
                judged = "loss"
        elif (row.name == "copies" and -gain > margin) or (
            row.name == "kid" and -gain > margin * abs(old.scores["base_kid"])
        ):
            judged = "loss"
        label = FIGURES[row.name].label
        shown = f"{row.a - row.b:+.3f}" + (" [{:+.3f}, {:+.3f}]".format(*row.interval) if row.interval else "")
        {"gain": gains, "loss": losses}.get(judged, []).append(f"{label.rstrip(' ↑↓')} {shown}")
        figures.append({"figure": label, "new": row.a, "champion": row.b, "difference": shown, "judged": judged})
    if losses:
        return Verdict(False, f"worse: {', '.join(losses)} (margin {margin:.0%})", figures)
    if not gains:
        return Verdict(False, "a draw: no interval of a paired difference lies above zero", figures)
    return Verdict(True, f"better: {', '.join(gains)}; nothing worse by more than {margin:.0%}", figures)


def _read(folder):
    from aclora.evaluation.compare import Run

    scores, about = (
        json.loads((folder / file).read_text(encoding="utf-8")) for file in ("scores.json", "evaluation.json")
    )
    rows = []
    for file in ("per_image.csv", "per_reference.csv"):
        with (folder / file).open(encoding="utf-8", newline="") as lines:
            rows.append(list(csv.DictReader(lines)))
    return Run(scores, about, *rows, method="")

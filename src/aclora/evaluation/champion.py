"""The rule by which a new adapter takes the champion's place: pairs, intervals and a margin."""

from dataclasses import dataclass
from pathlib import Path

from aclora.core.errors import InputError
from aclora.evaluation.compare import compare, read_run
from aclora.metrics.contract import Score, key_of


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger wins, why in one line, and the figures that were looked at, a row each."""

    promote: bool
    why: str
    figures: list[dict]


def decide(challenger: Path, champion: Path, margin: float, scores: dict[str, Score]) -> Verdict:
    """Compare two metrics folders of one style (scores.json, evaluation.json, per_image.csv, per_reference.csv).

    The challenger *gains* where the 95 % interval of a paired difference (the same prompts and seeds) lies wholly on
    the better side of zero. It *loses* where such a figure is worse by more than `margin` of the champion's value and
    its interval leaves zero out. Of figures without an interval, those with a `gate` can lose: the share of copies and
    KID, because DINO's score alone rewards copies and collapse. The challenger takes the place if it gains somewhere
    and loses nowhere. What does not compare (other prompts, another reference or encoder) leaves the champion.
    """
    new, old = read_run(challenger), read_run(champion)
    try:
        rows, _, _ = compare(new, old, scores)
    except InputError as error:
        return Verdict(False, f"{error}; the champion stays, move the alias by hand if it is out of date", [])
    figures, gains, losses = [], [], []
    for row in rows:
        better, figure = row.score.better, row.score.figure
        gain = better * (row.a - row.b)
        judged = ""
        if row.interval:
            low, high = sorted(better * end for end in row.interval)
            if low > 0:
                judged = "gain"
            elif high < 0 and -gain > margin * abs(row.b):
                judged = "loss"
        elif figure.gate:
            unit = abs(old.scores[key_of(figure.name, "base")]) if figure.gate == "share_of_base" else 1
            judged = "loss" if -gain > margin * unit else ""
        shown = f"{row.a - row.b:+.3f}" + (" [{:+.3f}, {:+.3f}]".format(*row.interval) if row.interval else "")
        {"gain": gains, "loss": losses}.get(judged, []).append(f"{figure.label} {shown}")
        figures.append(
            {"figure": row.score.label, "new": row.a, "champion": row.b, "difference": shown, "judged": judged}
        )
    if losses:
        return Verdict(False, f"worse: {', '.join(losses)} (margin {margin:.0%})", figures)
    if not gains:
        return Verdict(False, "a draw: no interval of a paired difference lies above zero", figures)
    return Verdict(True, f"better: {', '.join(gains)}; nothing worse by more than {margin:.0%}", figures)

"""How much better is one method than another, over metrics of different units? As the paper averages it."""

import math

LEAST = 0.1  # below it a rival's value is no denominator


def relative_change(ours: float, rival: float, better: int) -> float | None:
    """(ours − rival) / |rival|, positive where ours is better; None where |rival| < 0.1: the ratio means nothing."""
    return better * (ours - rival) / abs(rival) if abs(rival) >= LEAST else None


def average_improvement(
    ours: dict[str, float], rival: dict[str, float], better: dict[str, int]
) -> tuple[float | None, dict[str, str]]:
    """Mean `relative_change` over the scores in `better` (1: more is better, -1: less is), and why any was left out.

    AC-LoRA's paper averages FID, CLIP score, DINO and ImageReward. None where all were left out.
    """
    changes, left_out = [], {}
    for name, sign in better.items():
        if name not in ours or name not in rival:
            left_out[name] = "not measured"
        elif not math.isfinite(ours[name]) or not math.isfinite(rival[name]):
            left_out[name] = "not a number"
        elif (change := relative_change(ours[name], rival[name], sign)) is None:
            left_out[name] = f"the rival's {rival[name]:.3g} is too near 0 for a ratio"
        else:
            changes.append(change)
    return (sum(changes) / len(changes) if changes else None), left_out

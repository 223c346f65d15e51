"""How much better is one method than another, over metrics of different units? As the paper averages it."""

import math

OF_THE_PAPER = {"fid": -1, "clip_score": 1, "dino_score": 1, "image_reward": 1}  # and which way is better
LEAST = 0.1  # below it a rival's value is no denominator


def relative_change(ours: float, rival: float, better: int) -> float | None:
    """(ours − rival) / |rival|, positive where ours is better; None where |rival| < 0.1: the ratio means nothing."""
    return better * (ours - rival) / abs(rival) if abs(rival) >= LEAST else None


def average_improvement(ours: dict[str, float], rival: dict[str, float]) -> tuple[float | None, dict[str, str]]:
    """Mean `relative_change` over FID, CLIP score, DINO and ImageReward, and why any of them was left out.

    None where all were.
    """
    changes, left_out = [], {}
    for name, better in OF_THE_PAPER.items():
        if name not in ours or name not in rival:
            left_out[name] = "not measured"
        elif not math.isfinite(ours[name]) or not math.isfinite(rival[name]):
            left_out[name] = "not a number"
        elif (change := relative_change(ours[name], rival[name], better)) is None:
            left_out[name] = f"the rival's {rival[name]:.3g} is too near 0 for a ratio"
        else:
            changes.append(change)
    return (sum(changes) / len(changes) if changes else None), left_out

"""How numbers are written in tables."""

from collections.abc import Sequence

LABEL_WIDTH = 50


def interval_text(ends: Sequence[float], sign: str = "") -> str:
    """An interval with three decimals; with `sign` "+" positive ends get a plus."""
    return f"[{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]"

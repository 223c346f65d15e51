"""What is said to a user whose input cannot be used."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A parameter or a file that cannot be used: one line that names it, its value and what to do."""


def require(holds: bool, knob: str, value: object, bound: str) -> None:
    """Raise `InputError` "knob = value: must be bound" unless `holds`."""
    if not holds:
        raise InputError(f"{knob} = {value!r}: must be {bound}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown word: the nearest known one, and all there are."""
    known = list(known)
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}there are: {', '.join(known) or 'none'}"

"""Errors about what a user wrote: one line each."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A parameter or a file that cannot be used: one line that names it, its value and what to do."""


def require(condition: bool, knob: str, value: object, bound: str) -> None:
    """Raise `InputError` "knob = value: must be bound" unless `condition` holds."""
    if not condition:
        raise InputError(f"{knob} = {value!r}: must be {bound}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown word: the closest known word, then all of them."""
    known = list(known)
    closest = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    guess = f"did you mean {closest[0]!r}? " if closest else ""
    return f"{guess}there are: {', '.join(known) or 'none'}"

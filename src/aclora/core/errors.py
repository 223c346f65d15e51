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


def printable(text: object) -> str:
    """Text from a file as a terminal may show it: in one line, what is no visible character escaped as Python does.

    That is control characters, line breaks, marks that turn the direction of writing, halves of UTF-16 pairs.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def quoted(value: object, limit: int = 80) -> str:
    """A value from a stranger's file as an error quotes it: as Python writes it, cut where it is long."""
    if isinstance(value, (dict, list)):
        return "{…}" if isinstance(value, dict) else "[…]"
    text = repr(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit else f"{text[:limit]}…"

"""Prompts within what a text-to-image model reads: its text encoders see so many tokens and nothing after them.

The trigger ends a prompt. A prompt that is too long is shortened before its trigger, or the model would never see it.
"""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aclora.core.errors import InputError

UNLIMITED = 100_000  # tokens: transformers writes 1e30 where a tokenizer's config lacks model_max_length


@dataclass(frozen=True)
class Reader:
    """One tokenizer of a model, and how many tokens of a prompt its text encoder sees, both ends included."""

    name: str  # tokenizer, tokenizer_2, …
    tokenizer: Any
    limit: int

    def tokens(self, text: str) -> int:
        """How many tokens a text is, both ends included."""
        return len(self.tokenizer(text, verbose=False).input_ids)

    def knows(self, text: str) -> bool:
        """Is at least one of a text's tokens, its ends and mere spaces aside, another than the unknown one?"""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        return any(token.strip("▁ ") and token != self.tokenizer.unk_token for token in tokens)


def reader(name: str, tokenizer: Any, limit: int | None, positions: int | None) -> Reader:
    """The reader of a tokenizer: it reads `limit` tokens, or where that is None its own model_max_length.

    `positions` is how many its text encoder has, None where it has no such bound. Raises `ValueError` for a tokenizer
    whose files say no length, or more than there are positions.
    """
    own: int = tokenizer.model_max_length
    limit = own if limit is None else min(own, limit)
    if limit > UNLIMITED:
        raise ValueError(f"{name}: its tokenizer_config.json has no model_max_length")
    if positions is not None and limit > positions:
        raise ValueError(f"{name}: its model_max_length is {limit}, its text encoder has {positions} positions")
    return Reader(name, tokenizer, limit)


def check_trigger(style: str, trigger: str, readers: Sequence[Reader]) -> list[str]:
    """Notes on a trigger that a tokenizer does not know.

    Raises `InputError` where the trigger alone is longer than a text encoder sees.
    """
    notes = []
    for one in readers:
        if (count := one.tokens(trigger)) > one.limit:
            raise InputError(
                f"styles.{style}.trigger = {trigger!r}: must be at most {one.limit} tokens of the model's "
                f"{one.name}, its two ends included, and is {count}: choose fewer words"
            )
        if not one.knows(trigger):
            notes.append(
                f"styles.{style}.trigger = {trigger!r}: the model's {one.name} knows none of it, so that any other "
                "unknown word calls the style as well: choose letters that it knows"
            )
    return notes


def fit_prompt(text: str, trigger: str, readers: Sequence[Reader]) -> tuple[str, str]:
    """A prompt of which every text encoder sees all, and the words that it lost; a prompt that fits is unchanged.

    `text` ends with ", trigger"; the words before it are dropped from the end on. With an empty trigger that is simply
    the text's end. Where not even its first word fits, as in a language without spaces, letters are dropped.
    """
    if _fits(text, readers):
        return text, ""
    ending = f", {trigger.strip()}" if trigger.strip() else ""
    words = text.removesuffix(ending).split()
    kept = _most([" ".join(words[:i]) for i in range(len(words))], ending, readers)
    count = len(kept.split())
    if not kept and words:
        letters = _most([words[0][:i] for i in range(len(words[0]))], ending, readers)
        words = [words[0].removeprefix(letters), *words[1:]]
        kept = letters
    return _joined(kept, ending), " ".join(words[count:])


def fit_prompts(texts: Iterable[str], trigger: str, readers: Sequence[Reader]) -> tuple[list[str], dict[str, str]]:
    """`fit_prompt` of each text; and of those that were shortened what they lost, by their text as it was."""
    fitted, lost = [], {}
    for text in texts:
        short, words = fit_prompt(text, trigger, readers)
        fitted.append(short)
        if short != text:
            lost[text] = words
    return fitted, lost


def note_of_lost(prompt: str, words: str, trigger: str, readers: Sequence[Reader]) -> str:
    """What to tell of a prompt, named as the user knows it, and of what `fit_prompt` took from it."""
    where = "it is cut before the trigger" if trigger else "its end is not seen"
    return f"{prompt}: {where}, for the model reads {min(r.limit for r in readers)} tokens; lost: {words!r}"


def _most(candidates, ending, readers):
    """The longest of the candidates, each longer than the one before, that fits with the ending; or nothing."""
    too_long = bisect.bisect_left(candidates, True, key=lambda head: not _fits(_joined(head, ending), readers))
    return candidates[too_long - 1] if too_long else ""


def _joined(head, ending):
    head = head.rstrip(" .,;:")
    return head + ending if head else ending.removeprefix(", ")


def _fits(text, readers):
    return all(one.tokens(text) <= one.limit for one in readers)

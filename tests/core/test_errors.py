"""Errors in one line: what they quote shows as text, whatever it is."""

import pytest

from aclora.core.errors import printable, quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("épée ‖ΔW‖ … 漢字", "épée ‖ΔW‖ … 漢字"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[2J\x07\x00\x7f", r"\x1b[2J\x07\x00\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("\u202eabc\u2066\u200f\u2028", r"\u202eabc\u2066\u200f\u2028"),
        ("\udcff\ud800", r"\udcff\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_is_no_visible_character_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(ValueError(text)) == shown
    assert printable(shown).isprintable()


def test_a_value_is_quoted_short():
    assert quoted("zxq") == "'zxq'"
    assert len(quoted("x" * 10**6)) == 81
    assert (quoted({"a": 1}), quoted([1]), quoted(2.5)) == ("{…}", "[…]", "2.5")

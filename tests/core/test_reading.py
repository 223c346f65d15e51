"""The user's files: what is not text is one line, and nothing waits."""

import os
import signal

import pytest

from aclora.core.errors import InputError
from aclora.core.reading import control_character, read_rows, read_text, require_file


@pytest.fixture(autouse=True)
def never_waits():
    """Ends a test that hangs."""
    signal.alarm(20)
    yield
    signal.alarm(0)


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa cat\n")
    assert read_text(tmp_path / "a.txt", 100) == "a cat\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a cat".encode("utf-16"), "is UTF-16: save it as UTF-8"),
        (b"\xfe\xff\0a", "is UTF-16: save it as UTF-8"),
        (b"caf\xe9", r"is not UTF-8 \(byte 3\): save it as UTF-8"),
        (b"a" * 101, "has 101 bytes: at most 100 are text for one"),
    ],
)
def test_what_is_no_text(tmp_path, content, said):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=f"a.txt {said}"):
        read_text(tmp_path / "a.txt", 100)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("none")
    (tmp_path / "loop").symlink_to("loop")
    for name, said in (
        ("pipe", "is a named pipe, not a file"),
        (".", "is a folder, not a file"),
        ("none", "does not exist"),
        ("link", "is a link to none, which does not exist"),
        ("loop", "cannot be read: Too many levels"),
    ):
        for read in (require_file, lambda file: read_text(file, 100), lambda file: read_rows(file, {}, "again")):
            with pytest.raises(InputError, match=said):
                read(tmp_path / name)


def test_control_characters_are_named():
    assert control_character("a\tb\r\n é 日本 👩‍🎨") is None
    assert control_character("a\0") == "U+0000"
    assert control_character("\x1b[31m") == "U+001B"
    assert control_character("a\udcff") == "U+DCFF"
    assert control_character("a\nb", allowed="") == "U+000A"


def test_rows_have_their_fields(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": "x\u2028y", "n": 1, "more": []}\n{"a": "", "n": 2}', encoding="utf-8")
    assert [row["n"] for row in read_rows(file, {"a": str, "n": int}, "again")] == [1, 2]


GOOD = b'{"a": "x"}\n'


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (GOOD + b'{"a"', 2),
        (GOOD + b"{}\n", 2),
        (GOOD + b'{"a": 1}\n' + GOOD, 2),
        (GOOD * 2 + b"\0" * 4096, 3),
        (GOOD + b"caf\xe9", 2),
        (GOOD + b"\n" + GOOD, 2),
        (b"[" * 100_000, 1),
    ],
)
def test_damaged_rows_are_one_line(tmp_path, content, line):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=rf"a.jsonl is damaged at line {line}: run it again$"):
        read_rows(tmp_path / "a.jsonl", {"a": str}, "run it again")

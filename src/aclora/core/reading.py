"""The user's files, read with care: regular files alone, text that is text, lines that hold what they should."""

import errno
import json
import os
import stat
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from aclora.core.errors import InputError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}  # how a file begins


def require_file(file: Path) -> os.stat_result:
    """A regular file's `stat`. Raises `InputError` for anything else: to open a pipe may wait for ever."""
    try:
        found = file.stat()
    except FileNotFoundError:
        what = f"is a link to {os.readlink(file)}, which does not exist" if file.is_symlink() else "does not exist"
        raise InputError(f"{file} {what}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        what = KINDS.get(stat.S_IFMT(found.st_mode), "of another kind")
        raise InputError(f"{file} is {what}, not a file: rename or remove it")
    return found


def read_text(file: Path, most: int) -> str:
    """The text of a UTF-8 file of at most `most` bytes, without a byte order mark.

    Raises `InputError` where it is no regular file, longer, or not UTF-8.
    """
    size = require_file(file).st_size
    if size > most:
        raise InputError(f"{file} has {size} bytes: at most {most} are text for one; is it another kind of file?")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {os.strerror(error.errno or errno.EIO)}") from None
    if content[:2] in MARKS:
        raise InputError(f"{file} is {MARKS[content[:2]]}: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 (byte {error.start}): save it as UTF-8") from None


def control_character(text: str, allowed: str = "\t\n\r") -> str | None:
    """The first control character of a text, as U+0000, but for the allowed ones; None where there is none."""
    for letter in text:
        if letter not in allowed and unicodedata.category(letter) in ("Cc", "Cs"):
            return f"U+{ord(letter):04X}"
    return None


def read_rows(file: Path, fields: Mapping[str, type], remedy: str) -> list[dict]:
    """The rows of a JSONL file that a stage wrote; each has the named fields, of their types, and perhaps others.

    Raises `InputError` "… is damaged at line N: remedy" otherwise, and for an empty file.
    """
    require_file(file)
    rows = []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # not splitlines, which also splits at U+2028
    except UnicodeDecodeError as error:
        lines = [*error.object[: error.start].decode().split("\n")[:-1], "no JSON"]
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines or [""], 1):
        try:
            row = json.loads(line)
            fits = isinstance(row, dict) and all(type(row.get(key)) is kind for key, kind in fields.items())
        except (ValueError, RecursionError):
            row, fits = {}, False
        if not fits:
            raise InputError(f"{file} is damaged at line {number}: {remedy}")
        rows.append(row)
    return rows

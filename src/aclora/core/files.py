"""Files that are complete or absent, their digests, and JSON as every stage writes it."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aclora.core.errors import InputError

AGAIN = "run the stage that writes it again"


def sha256(file: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digest(path: Path) -> str:
    """Hex sha256 of a file, or of a folder's files with their names; Python's byte code does not count."""
    if path.is_file():
        return sha256(path)
    files = sorted(f for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    names = {f.relative_to(path).as_posix(): sha256(f) for f in files}
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def read_json(file: Path, again: str = AGAIN) -> Any:
    """The content of a JSON file.

    Raises `InputError` with file, line and what to do (`again`) where it is damaged, `FileNotFoundError` where there
    is none.
    """
    return _parsed(file.read_bytes(), file, 1, again)


def write_json(file: Path, value: object) -> None:
    """Write a JSON file, one space of indentation a level."""
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def read_jsonl(file: Path, again: str = AGAIN) -> list[dict]:
    """The objects of a JSONL file, one per line. Raises what `read_json` raises; each line must be an object."""
    with file.open("rb") as lines:  # not str.splitlines, which also splits inside of texts, at U+2028
        rows = [_parsed(line.rstrip(), file, number, again) for number, line in enumerate(lines, 1)]
    number = next((n for n, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if number:
        raise InputError(f"{file} is damaged (line {number} is no object): {again}")
    return rows


def _parsed(text: bytes, file: Path, line: int, again: str) -> Any:
    """The JSON in `text`, which begins at a line of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line += error.lineno - 1
    except UnicodeDecodeError as error:
        line += text.count(b"\n", 0, error.start)
    except (ValueError, RecursionError):  # a number or a nesting beyond what Python reads
        pass
    raise InputError(f"{file} is damaged (line {line}): {again}")


def write_jsonl(file: Path, rows: Iterable[dict]) -> None:
    """Write a JSONL file; texts keep their letters, so that people can read captions and prompts."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def part_of(file: Path) -> Path:
    """Where this process writes a file or folder before it moves into place."""
    return file.with_name(f".{file.name}.{os.getpid()}.part")


def remove_parts(folder: Path) -> None:
    """Delete what killed processes left half-written in a folder that nobody else writes to."""
    for part in folder.glob(".*.part"):
        _remove(part)


def write_atomically(file: Path, content: bytes, durable: bool = False) -> None:
    """Replace a file in one step: whatever happens, it is the new one or still the old one.

    Missing folders are created. With `durable` content and name are on the disk when this returns, so that a power
    cut cannot take them back. Raises `OSError`.
    """
    part = part_of(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as out:
            out.write(content)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    if durable:
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def writing(*outs: str | Path) -> Iterator[list[Path]]:
    """Yield a path beside each out to write to; all move into place at the end, none after an error.

    Nothing exists there yet: create a file or a folder.
    """
    places = [Path(out) for out in outs]
    parts = [part_of(place) for place in places]
    try:
        for part in parts:
            part.parent.mkdir(parents=True, exist_ok=True)
        yield parts
        for place in places:
            _remove(place)
        for part, place in zip(parts, places, strict=True):
            part.replace(place)
    finally:
        for part in parts:
            _remove(part)


def require_writable(*outs: str | Path) -> None:
    """Raise `InputError` where one of these files or folders could not be written or replaced.

    Tried with an empty file beside each, before the work that is to end there. Missing folders are created.
    """
    for out in map(Path, outs):
        part = part_of(out)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.touch()
            part.unlink()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise  # a stage says it in its own words
            raise InputError(
                f"{out} cannot be written ({error.strerror}): give this user the right to write to {out.parent}, "
                "or move what stands in its way"
            ) from None
        if out.is_dir() and not out.is_symlink() and not os.access(out, os.W_OK | os.X_OK):
            raise InputError(f"{out} cannot be replaced: give this user the right to write to it, or remove it")


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

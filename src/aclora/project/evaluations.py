"""The files of an evaluation, in a folder or a git revision, read with care: hands and merges break them."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from aclora.core.errors import InputError

AGAIN = "run the evaluate stage again (`dvc repro --force evaluate@<style>`)"
IMAGES = {"set", "prompt", "seed"}  # columns of per_image.csv, beside those of figures
REALS = {"file"}  # of per_reference.csv


class _Strict(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Reference(_Strict):
    what: str
    digest: str
    held_out: bool


class _Counts(_Strict):
    generated: int
    prompts: int


class _Figure(_Strict):
    encoder: str
    interval: list[float] | None = None


class _About(_Strict):
    reference: _Reference
    counts: _Counts
    figures: dict[str, _Figure]


ABOUT = TypeAdapter(_About)
SCORES = TypeAdapter(dict[str, float | None], config=ConfigDict(strict=True, allow_inf_nan=False))


def scores(text: str, file: str) -> dict[str, Any]:
    """What scores.json says: a number, or null, by key. Raises `InputError` where it is damaged."""
    return _checked(text, file, SCORES)


def about(text: str, file: str) -> dict[str, Any]:
    """What evaluation.json says of the reference, of counts and of each figure. Raises `InputError`."""
    return _checked(text, file, ABOUT)


def rows(text: str, file: str, columns: set[str]) -> list[dict[str, str]]:
    """The rows of per_image.csv or per_reference.csv, which have `columns`. Raises `InputError`."""
    try:
        found = list(csv.DictReader(io.StringIO(text), strict=True, restkey="more"))
    except csv.Error as error:
        raise InputError(f"{file} is damaged ({error}): {AGAIN}") from None
    for number, row in enumerate(found or [{}], 2):
        if missing := sorted(columns - {key for key, value in row.items() if value is not None}):
            raise InputError(f"{file} is damaged at line {number} (no {missing[0]}): {AGAIN}")
        if "more" in row:
            raise InputError(f"{file} is damaged at line {number} (more values than names): {AGAIN}")
    return found


def number(row: dict[str, str], column: str, file: str) -> float:
    """A row's number in a column. Raises `InputError` where there is none."""
    try:
        value = float(row[column])
    except (KeyError, TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{file} is damaged ({column} = {row.get(column)!r} is no number): {AGAIN}")
    return value


def text_of(file: Path) -> tuple[str, str]:
    """A file's text and its name. Raises `InputError` where it is missing or not UTF-8."""
    return reading(lambda name: Path(name).read_text(encoding="utf-8"), file)


def reading(read: Callable[[str], str], path: Path) -> tuple[str, str]:
    """What `read` makes of a file's name, and the name. Raises `InputError` where it is missing or not UTF-8."""
    file = path.as_posix()
    try:
        return read(file), file
    except FileNotFoundError:
        raise InputError(f"{file} is missing: run `dvc repro` first") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is damaged (it is not UTF-8): {AGAIN}") from None


def _checked(text, file, schema):
    try:
        value = json.loads(text)
        schema.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{file} is damaged ({f'{where}: ' * bool(where)}{first['msg']}): {AGAIN}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{file} is damaged (it is no JSON): {AGAIN}") from None
    return value

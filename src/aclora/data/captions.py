"""A caption for every picture: the user's own, or one that a captioner writes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from aclora.core.errors import InputError
from aclora.core.files import read_jsonl, sha256, write_jsonl
from aclora.data.pictures import picture_files, read_picture


@dataclass(frozen=True)
class Caption:
    """One picture's line in data/captions/<style>.jsonl."""

    file: str
    sha256: str
    caption: str
    text: str  # the caption with the trigger: the training prompt
    source: str  # the file that held the caption, or its writer


def with_trigger(text: str, trigger: str) -> str:
    """A prompt that calls a style: the trigger is at its end."""
    return f"{text.strip().rstrip('.,')}, {trigger.strip()}"


def caption_folder(
    folder: Path, trigger: str, write: Callable[[Image.Image], str] | None, writer: str
) -> list[Caption]:
    """The captions of a folder's pictures, by file name.

    A picture's caption is in `name.txt` beside it or in a line of `metadata.jsonl`; without either, `write` makes one,
    and its source is `writer`. Raises `InputError` for a caption that is empty, not UTF-8, or missing with no `write`.
    """
    listed = _metadata(folder / "metadata.jsonl")
    out = []
    for file in picture_files(folder):
        picture = read_picture(file)  # also where no caption is needed: an unreadable one is found before training
        beside = file.with_suffix(".txt")
        if beside.exists():
            caption, source = _text(beside), beside.name
        elif file.name in listed:
            caption, source = listed[file.name], "metadata.jsonl"
        elif write:
            caption, source = write(picture), writer
        else:
            raise InputError(
                f"{file} has no caption: write one line into {beside.name} beside it, "
                "or name a BLIP captioner in captions.model"
            )
        caption = " ".join(caption.split())
        if not caption:
            raise InputError(f"{file} has an empty caption ({source}): say in a line what it shows")
        out.append(Caption(file.name, sha256(file), caption, with_trigger(caption, trigger), source))
    return out


def write_captions(file: Path, captions: list[Caption]) -> None:
    """Write one JSON object a line, in the given order."""
    write_jsonl(file, map(vars, captions))


def read_training_set(captions: Path, folder: Path) -> tuple[list[Image.Image], list[Caption]]:
    """The pictures of a folder and their captions. `InputError` where a picture is missing or has changed since."""
    rows = [Caption(**row) for row in read_jsonl(captions)]
    for row in rows:
        file = folder / row.file
        if not file.is_file() or sha256(file) != row.sha256:
            raise InputError(f"{file} is not the picture that {captions} describes: run the caption stage again")
    return [read_picture(folder / row.file) for row in rows], rows


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 (byte {error.start}): save it as UTF-8") from None


def _metadata(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    out = {}
    for number, line in enumerate(_text(file).splitlines(), 1):
        try:
            row = json.loads(line)
            name, text = row["file_name"], row["text"] if "text" in row else row["caption"]
        except (ValueError, KeyError, TypeError):
            name = text = None
        if not isinstance(name, str) or not isinstance(text, str):
            raise InputError(f'{file}, line {number}: must be {{"file_name": "…", "text": "…"}}')
        out[name] = text
    return out

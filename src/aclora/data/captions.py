"""A caption for every picture: the user's own, or one that a captioner writes."""

import difflib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from aclora.core.errors import InputError
from aclora.core.files import sha256, write_jsonl
from aclora.core.reading import control_character, read_rows, read_text, require_file
from aclora.data.listing import METADATA, Listing, example, folded, listing, some
from aclora.data.pictures import Pictures, look_at_pictures, picture_files, read_picture

MOST_BYTES = 16_384  # of one caption; a model reads a few hundred letters
MOST_METADATA = 64_000_000
ALIKE = str.maketrans("oil", "011")  # what people type for one another in the names of files


@dataclass(frozen=True)
class Caption:
    """One picture's line in data/captions/<style>.jsonl."""

    file: str
    sha256: str
    caption: str
    text: str  # the caption with the trigger: the training prompt
    source: str  # the file that held the caption, or its writer


@dataclass(frozen=True)
class StyleFolder:
    """A folder of captioned pictures: its files, their captions in that order, and lines that a user should read."""

    pictures: Pictures
    captions: list[Caption]
    notes: list[str]


def contains_trigger(text: str, trigger: str) -> bool:
    """Does a text call a style already? Capitals and the number of spaces do not count."""
    words = r"\s+".join(map(re.escape, trigger.split()))
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


def with_trigger(text: str, trigger: str) -> str:
    """A prompt that calls a style: the trigger is at its end, unless it is in the text already."""
    bare = text.strip().rstrip(".,")
    return bare if contains_trigger(bare, trigger) else f"{bare}, {trigger.strip()}"


def prompt_notes(prompts: list[str], trigger: str) -> list[str]:
    """What is odd about prompts that can be used all the same: a line for each kind."""
    kinds = {
        "repeated, which weighs them more in every figure": [p for p, count in Counter(prompts).items() if count > 1],
        f"with the trigger {trigger!r} in them, so that they cannot show drift": [
            p for p in prompts if contains_trigger(p, trigger)
        ],
    }
    return [f"prompts {kind}: {len(found)} (the first: {found[0]})" for kind, found in kinds.items() if found]


def look_at_folder(
    folder: Path,
    trigger: str,
    write: Callable[[Image.Image], str] | None,
    writer: str,
    cache: Path | None = None,
    size: int | None = None,
    others: Iterable[str] = (),
) -> StyleFolder:
    """The pictures and captions of a folder, by file name, every file accounted for.

    A picture's caption is in `name.txt` beside it or in a line of `metadata.jsonl`; without either, `write` makes one,
    and its source is `writer`. `cache` and `size` are those of `look_at_pictures`. `others` are the triggers of other
    styles, which are noted where a caption contains one. Raises `InputError` for a picture that cannot be read, and for
    a caption that is empty, not UTF-8, of no picture, of two, or missing with no `write`.
    """
    found = listing(folder)
    files, texts, listed = _sources(found)
    pictures = look_at_pictures(folder, cache, size)  # an unreadable one is found here, before training
    captions, seen = [], defaultdict(list)
    for file in files:
        if file in texts:
            caption, source = read_text(texts[file], MOST_BYTES), texts[file].name
            if file in listed:
                seen[f"{METADATA} has another caption than the .txt file, which is used"].append(file.name)
        elif file in listed:
            caption, source = listed[file], METADATA
        elif write:
            caption, source = write(read_picture(file)), writer
        else:
            raise InputError(
                f"{file} has no caption: write one line into {file.stem}.txt beside it, "
                "or name a BLIP captioner in captions.model"
            )
        caption = _checked(caption, file, source)
        if contains_trigger(caption, trigger):
            seen["the trigger is in the caption, and not added again"].append(file.name)
        for other in others:
            if contains_trigger(caption, other) and not contains_trigger(trigger, other):
                seen[f"the caption contains another style's trigger, {other!r}"].append(file.name)
        if source == writer and (texts or listed):
            seen[f"no caption, though others have one; {writer} writes it"].append(file.name)
        captions.append(Caption(file.name, pictures.digests[file], caption, with_trigger(caption, trigger), source))
    if len(captions) > 1 and len({row.caption for row in captions}) == 1:
        seen["one caption for all"] = [row.file for row in captions]
    notes = [f"{folder}: {note}: {example(names)}" for note, names in seen.items()]
    return StyleFolder(pictures, captions, pictures.notes + notes)


def caption_folder(
    folder: Path, trigger: str, write: Callable[[Image.Image], str] | None, writer: str, cache: Path | None = None
) -> list[Caption]:
    """The captions alone that `look_at_folder` finds."""
    return look_at_folder(folder, trigger, write, writer, cache).captions


def write_captions(file: Path, captions: list[Caption]) -> None:
    """Write one JSON object a line, in the given order."""
    write_jsonl(file, map(vars, captions))


def read_captions(file: Path, folder: Path) -> list[Caption]:
    """The captions of a folder's pictures, as `write_captions` wrote them.

    `InputError` where the file is damaged, or a picture is missing or has changed since.
    """
    again = "run the caption stage again"
    fields = tuple(Caption.__annotations__)
    rows = read_rows(file, dict.fromkeys(fields, str), f"{again} (`dvc repro --force caption@{file.stem}`)")
    if {row["file"] for row in rows} != {picture.name for picture in picture_files(folder)}:
        raise InputError(f"{file} does not describe the pictures that are in {folder}: {again}")
    for row in rows:
        picture = folder / row["file"]
        require_file(picture)
        if sha256(picture) != row["sha256"]:
            raise InputError(f"{picture} is not the picture that {file} describes: {again}")
    return [Caption(*(row[key] for key in fields)) for row in rows]


def _sources(found: Listing):
    """A folder's pictures, and by picture its .txt file and its caption in metadata.jsonl."""
    texts = {}
    for text in found.texts:
        fitting = [file for file in found.pictures if file.stem == text.stem]
        fitting = fitting or [file for file in found.pictures if folded(file.stem) == folded(text.stem)]
        if len(fitting) > 1:
            raise InputError(f"{text} belongs to {' and '.join(f.name for f in fitting)}: rename one, with its caption")
        if fitting and fitting[0] in texts:
            raise InputError(f"{fitting[0]} has two captions, {texts[fitting[0]].name} and {text.name}: remove one")
        if fitting:
            texts[fitting[0]] = text
    listed = _metadata(found, texts) if found.metadata else {}
    if orphans := [text for text in found.texts if text not in texts.values()]:
        raise InputError(_no_picture(orphans, found, {**texts, **listed}))
    return found.pictures, texts, listed


def _no_picture(orphans, found, captioned):
    """The error about captions that belong to no picture, with a guess at which one the first is meant for."""
    first = orphans[0]
    unread = [file for file in found.unused if folded(file.stem) == folded(first.stem)]
    if unread:
        guess = f"{unread[0].name} is not used ({found.unused[unread[0]]})"
    else:
        guess = _guess(first.stem, [f for f in found.pictures if f not in captioned]) or "rename or remove it"
    rest = f"; nor do {some([text.name for text in orphans[1:]])}" if orphans[1:] else ""
    return f"{first} belongs to no picture: {guess}{rest}"


def _guess(name, pictures):
    stems = {folded(file.stem).translate(ALIKE): file.name for file in reversed(pictures)}
    closest = difflib.get_close_matches(folded(name).translate(ALIKE), stems, n=1)
    return f"did you mean {stems[closest[0]]!r}?" if closest else ""


def _metadata(found: Listing, texts):
    """Picture → its caption in metadata.jsonl, every line of which must be about one picture of the folder."""
    file, captions, numbers = found.metadata, {}, {}
    assert file is not None
    exact = {picture.name: picture for picture in found.pictures}
    loose = {folded(name): picture for name, picture in exact.items()}
    for number, line in enumerate(read_text(file, MOST_METADATA).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = dict(pairs := json.loads(line, object_pairs_hook=list))
            name, text = row["file_name"], row["text"] if "text" in row else row["caption"]
        except (ValueError, KeyError, TypeError, RecursionError):
            pairs, row, name, text = [], {}, None, None
        if len(pairs) > len(row) or {"text", "caption"} <= row.keys():
            raise InputError(f"{file}, line {number}: the picture has two captions: keep one")
        if not isinstance(name, str) or not isinstance(text, str):
            raise InputError(f'{file}, line {number}: must be {{"file_name": "…", "text": "…"}}')
        picture = exact.get(name) or loose.get(folded(name))
        if picture is None:
            free = [p for p in found.pictures if p not in texts and p not in captions]
            guess = _guess(Path(name).stem, free) or "correct or remove the line"
            raise InputError(f"{file}, line {number}: {name!r} is no picture of this folder: {guess}")
        if picture in captions:
            raise InputError(
                f"{file}, line {number}: {name!r} has a caption in line {numbers[picture]} already: keep one"
            )
        captions[picture], numbers[picture] = text, number
    if not captions:
        raise InputError(f"{file} is empty: write a line for each picture, or remove it")
    return captions


def _checked(caption, file, source):
    """A caption in one line. Raises `InputError` where it says nothing or holds what nobody types."""
    if letter := control_character(caption):
        raise InputError(f"{file} has a caption with {letter} in it ({source}): write it as plain text, in UTF-8")
    caption = " ".join(caption.split())
    if not caption:
        raise InputError(f"{file} has an empty caption ({source}): say in a line what it shows")
    if not any(letter.isalnum() for letter in caption):
        raise InputError(f"{file} has a caption without a word, {caption!r} ({source}): say in a line what it shows")
    return caption

"""What is in a folder of pictures: every file is used, or named with the reason why not."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aclora.core.errors import InputError
from aclora.core.reading import control_character
from aclora.data.decode import ENDINGS

METADATA = "metadata.jsonl"
# What systems leave, and what belongs to DVC; so are hidden files, whose names begin with a dot.
SKIPPED_NAMES, SKIPPED_ENDINGS = ("thumbs.db", "desktop.ini", "__macosx", "__pycache__"), (".dvc",)
NOT_USED: dict[str, str] = dict.fromkeys((".heic", ".heif"), "cannot be read here: convert it to JPEG or PNG")
NOT_USED |= dict.fromkeys((".caption", ".csv", ".json", ".jsonl"), f"captions are read from .txt and {METADATA} alone")


@dataclass(frozen=True)
class Listing:
    """What is in a folder: pictures, .txt files, metadata.jsonl if it is there, and why each other file is not used."""

    pictures: list[Path]
    texts: list[Path]
    metadata: Path | None
    unused: dict[Path, str]

    @property
    def notes(self) -> list[str]:
        """A line for each reason why files are not used."""
        reasons = defaultdict(list)
        for file, reason in self.unused.items():
            reasons[reason].append(file.name)
        return [f"not used: {some(names)} ({reason})" for reason, names in reasons.items()]


def listing(folder: Path) -> Listing:
    """Every file of a folder, sorted by name, but for hidden ones and what systems leave.

    Raises `InputError` if it is missing or holds no picture.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: put the style's pictures there, or correct styles.*.pictures")
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    pictures, texts, metadata, unused = [], [], [], {}
    for file in files:
        name, ending = file.name.lower(), file.suffix.lower()
        if name.startswith(".") or name in SKIPPED_NAMES or ending in SKIPPED_ENDINGS:
            continue
        if letter := control_character(file.name, allowed=""):
            raise InputError(f"{folder} holds a file with {letter} in its name, {file.name!a}: rename it")
        if ending in ENDINGS:
            pictures.append(file)
        elif ending == ".txt":
            texts.append(file)
        elif name == METADATA:
            metadata.append(file)
        elif not file.is_dir():
            unused[file] = NOT_USED.get(ending, "no kind of file that is read here")
        elif any(f.suffix.lower() in ENDINGS for f in file.glob("*")):  # other sub-folders are nobody's business
            unused[file] = "a sub-folder with pictures"
    found = Listing(pictures, texts, metadata[0] if metadata else None, unused)
    if not pictures:
        others = "".join(f"; {note}" for note in found.notes)
        raise InputError(f"{folder} holds no pictures: put 10–15 of them there ({', '.join(ENDINGS)}){others}")
    if len(metadata) > 1:
        raise InputError(f"{metadata[0]} and {metadata[1].name} both hold captions: keep one")
    return found


def some(names: Sequence[str]) -> str:
    """Up to five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def example(names: Sequence[str]) -> str:
    """How many pictures, and the first: "3 pictures (the first: 01.png)"."""
    return f"{len(names)} pictures (the first: {names[0]})" if len(names) > 1 else names[0]


def folded(name: str) -> str:
    """A name as people compare it: capitals and the ways to write an accent do not count."""
    return unicodedata.normalize("NFC", name).casefold()

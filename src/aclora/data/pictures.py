"""Pictures of a folder: what is to be said of them, and their squares, one picture in memory at a time."""

import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import PIL
from PIL import Image

from aclora.core.errors import InputError
from aclora.core.files import sha256, write_atomically
from aclora.core.images import one_colour, square
from aclora.core.reading import read_rows
from aclora.data.decode import decode, pixels
from aclora.data.listing import example, listing

SMALLEST = 8  # pixels a side; the side of a latent's pixel
LARGE = 4_000_000  # pixels; a smaller picture is decoded as fast as the cache is read
DRAFT = 256  # pixels a side that are decoded to see whether a file can be


@dataclass(frozen=True)
class Pictures:
    """A folder's picture files by name with their sha256, and notes: lines that a user should read once."""

    digests: dict[Path, str]
    notes: list[str]


def picture_files(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted by name. `InputError` if it is missing or holds none."""
    return listing(folder).pictures


def look_at_pictures(folder: Path, cache: Path | None = None, size: int | None = None) -> Pictures:
    """Read every picture of a folder to its end and note what is done to which; none of them is kept in memory.

    `size` is the side of the squares that will be made of them, where it is known. What was seen of large pictures is
    kept in the folder `cache`. Raises `InputError` for a picture that cannot be read or is smaller than `SMALLEST`.
    """
    found = listing(folder)
    seen, same, digests = defaultdict(list), defaultdict(list), {}
    for file in found.pictures:
        digests[file] = sha256_of_picture(file)
        (width, height), notes = _seen(file, digests[file], cache)
        if min(width, height) < SMALLEST:
            raise InputError(
                f"{file} has {width} × {height} pixels: at least {SMALLEST} a side are needed; replace or remove it"
            )
        if max(width, height) >= 2 * min(width, height):
            notes.append("at least twice as long as wide, of which the central square is used")
        if size and min(width, height) < size:
            notes.append(f"enlarged to the training's {size} pixels a side")
        same[digests[file]].append(file.name)
        for note in notes:
            seen[note].append(file.name)
    lines = [f"{note}: {example(names)}" for note, names in seen.items()]
    lines += [f"the same picture: {', '.join(names)}" for names in same.values() if len(names) > 1]
    return Pictures(digests, [f"{folder}: {line}" for line in lines + found.notes])


def shared_pictures(pictures: Pictures, reference: Pictures) -> list[str]:
    """A note where a reference holds pictures that are trained on, which rewards copies."""
    trained = set(pictures.digests.values())
    same = [file.name for file, digest in reference.digests.items() if digest in trained]
    where = next(iter(reference.digests)).parent
    return [f"{where}: training pictures, which let figures reward copies: {example(same)}"] if same else []


def sha256_of_picture(file: Path) -> str:
    """Hex sha256 of a picture file. Raises `InputError` where it is no regular file or cannot be read."""
    pixels(file)
    return sha256(file)


def read_picture(file: Path) -> Image.Image:
    """A picture in RGB, as `decode` reads it. `InputError` names a file that cannot be read."""
    return decode(file).image


def read_squares(files: Iterable[Path], size: int, cache: Path | None = None) -> list[Image.Image]:
    """The central squares of pictures, `size` pixels a side, RGB.

    Those of large pictures are kept in the folder `cache`, by content: whoever needs them next does not decode again.
    Raises `InputError` as `read_picture` does.
    """
    return [_square(file, size, cache) for file in files]


def read_generated(folder: Path, kind: str) -> tuple[list[dict], list[Image.Image]]:
    """The rows of a folder's prompts.jsonl (file, prompt, seed) and its pictures of one kind ("adapter", "base").

    `InputError` where there are none, where one is missing or damaged, or where their sizes differ.
    """
    listed = folder / "prompts.jsonl"
    again = "run the generate stage again (`dvc repro --force`)"
    if not listed.exists():
        raise InputError(f"{folder} holds no generated pictures (prompts.jsonl is missing): {again}")
    rows = read_rows(listed, {"file": str, "prompt": str, "seed": int}, again)
    files = [folder / kind / row["file"] for row in rows]
    if missing := [file for file in files if not file.is_file()]:
        raise InputError(f"{missing[0]}, which {listed} lists, is missing: {again}")
    if more := {file.name for file in (folder / kind).glob("*.png")} - {row["file"] for row in rows}:
        raise InputError(f"{listed} does not list {folder / kind / min(more)}: {again}")
    pictures = [read_picture(file) for file in files]
    for file, picture in zip(files, pictures, strict=True):
        if picture.size != pictures[0].size:
            raise InputError(f"{file} is {picture.size}, {files[0]} {pictures[0].size}: one size is needed; {again}")
    return rows, pictures


def _seen(file, digest, cache):
    """(width, height) and notes of a picture that has been read to its end."""
    kept = _place(file, digest, cache, "seen.json")
    if kept:
        with suppress(OSError, ValueError, TypeError):  # not yet there, or cut short
            width, height, notes = json.loads(kept.read_text(encoding="utf-8"))
            return (int(width), int(height)), list(map(str, notes))
    picture = decode(file, DRAFT)
    notes = [*picture.notes, *(["of one colour all over"] if one_colour(picture.image) else [])]
    if kept:
        _keep(kept, json.dumps([*picture.size, notes]).encode())
    return picture.size, notes


def _square(file, size, cache):
    kept = _place(file, None, cache, f"{size}.rgb")
    if kept:
        with suppress(OSError):  # not yet there
            content = kept.read_bytes()
            if len(content) == 32 + 3 * size * size and hashlib.sha256(content[32:]).digest() == content[:32]:
                return Image.frombytes("RGB", (size, size), content[32:])
    picture = square(read_picture(file), size)
    if kept:
        values = picture.tobytes()
        _keep(kept, hashlib.sha256(values).digest() + values)
    return picture


def _place(file, digest, cache, what):
    """Where the cache keeps something of a large picture; None for others."""
    if cache is None or pixels(file) < LARGE:
        return None
    return cache / f"{(digest or sha256(file))[:32]}-{_version()}-{what}"


def _keep(file, content):
    with suppress(OSError):  # a cache that cannot be written costs time alone
        write_atomically(file, content)


@functools.cache
def _version():
    """Stands for the code that decodes: what another version made is not taken for this one's."""
    code = b"".join(Path(f.__code__.co_filename).read_bytes() for f in (decode, square, _square))
    return hashlib.sha256(code + PIL.__version__.encode()).hexdigest()[:8]

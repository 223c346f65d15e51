"""Pictures in a folder: which they are, in one order, and what they show."""

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from aclora.core.errors import InputError
from aclora.core.files import read_jsonl

KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def picture_files(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted by name. `InputError` if it is missing or holds none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: put the style's pictures there, or correct styles.*.pictures")
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in KINDS)
    if not files:
        raise InputError(f"{folder} holds no pictures: put 10–15 of them there ({', '.join(KINDS)})")
    return files


def read_picture(file: Path) -> Image.Image:
    """A picture in RGB; transparent parts become white. `InputError` names a file that cannot be read."""
    try:
        with Image.open(file) as image:
            image.load()
            if image.has_transparency_data:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                return Image.alpha_composite(white, image).convert("RGB")
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise InputError(f"{file} is not a readable picture ({error}): replace or remove it") from None


def read_pictures(folder: Path) -> list[Image.Image]:
    """All pictures of a folder, sorted by name. Raises `InputError` as `read_picture` does."""
    return [read_picture(f) for f in picture_files(folder)]


def read_generated(folder: Path, kind: str) -> tuple[list[dict], list[Image.Image]]:
    """The rows of a folder's prompts.jsonl (file, prompt, seed) and its pictures of one kind ("adapter", "base").

    `InputError` where there are none, where one is missing, or where their sizes differ.
    """
    listed = folder / "prompts.jsonl"
    again = "run the generate stage again"
    if not listed.is_file():
        raise InputError(f"{folder} holds no generated pictures (prompts.jsonl is missing): {again}")
    rows = read_jsonl(listed)
    files = [folder / kind / row["file"] for row in rows]
    missing = [file for file in files if not file.is_file()]
    if not rows or missing:
        what = f"{missing[0]}, which {listed} lists, is missing" if missing else f"{listed} lists no pictures"
        raise InputError(f"{what}: {again}")
    pictures = [read_picture(file) for file in files]
    for file, picture in zip(files, pictures, strict=True):
        if picture.size != pictures[0].size:
            raise InputError(f"{file} is {picture.size}, {files[0]} {pictures[0].size}: one size is needed; {again}")
    return rows, pictures

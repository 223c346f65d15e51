"""A folder of pictures and their captions: read in one order, checked before any work begins."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from aclora.errors import InputError

KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Caption:
    """One picture's line in data/captions/<style>.jsonl."""

    file: str
    sha256: str
    caption: str
    text: str  # the caption with the trigger: what the model is told
    source: str  # where the caption came from


def picture_files(folder: Path) -> list[Path]:
    """The folder's pictures, by name. `InputError` if it is missing or holds none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: put the style's pictures there, or correct styles.*.pictures")
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in KINDS)
    if not files:
        raise InputError(f"{folder} holds no pictures: put 10–15 of them there ({', '.join(KINDS)})")
    return files


def read_picture(file: Path) -> Image.Image:
    """A picture as RGB, transparency on white. `InputError` names a file that cannot be read."""
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
    """All pictures of a folder, by name."""
    return [read_picture(f) for f in picture_files(folder)]


def sha256(file: Path) -> str:
    """Hex digest of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_captions(file: Path, captions: list[Caption]) -> None:
    """One JSON object a line, in the pictures' order."""
    lines = [json.dumps(vars(c), ensure_ascii=False) for c in captions]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_training_set(captions: Path, folder: Path) -> tuple[list[Image.Image], list[Caption]]:
    """The captioned pictures. `InputError` where a picture is gone or not the one that was captioned."""
    rows = [Caption(**json.loads(line)) for line in captions.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        file = folder / row.file
        if not file.is_file() or sha256(file) != row.sha256:
            raise InputError(f"{file} is not the picture that {captions} describes: run the caption stage again")
    return [read_picture(folder / row.file) for row in rows], rows

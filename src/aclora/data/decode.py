"""The one way in for every picture: any of the formats below becomes upright 8-bit RGB in sRGB, on white."""

import contextlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, features

from aclora.core.errors import InputError
from aclora.core.reading import require_file
from aclora.data.png import check_png

# What is in a file decides, not its name; nothing else is handed to a decoder (Pillow would start Ghostscript for EPS).
FORMATS = ["PNG", "JPEG", "TIFF", "BMP", "GIF", *(name.upper() for name in ("webp", "avif") if features.check(name))]
ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif")
ENDINGS += (".avif",) if "AVIF" in FORMATS else ()
MOST_PIXELS = 200_000_000  # the largest telephone cameras have as many; 0.8 GB of memory
ORIENTATION = 0x0112  # of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SRGB = ImageCms.createProfile("sRGB")
ONE_AT_A_TIME = threading.RLock()  # Pillow's bound on pixels and Python's filter of warnings are the whole process's


@dataclass(frozen=True)
class Decoded:
    """A picture in RGB, the (width, height) that it has when it is decoded in full, and what was done to it."""

    image: Image.Image
    size: tuple[int, int]
    notes: tuple[str, ...]


def decode(file: Path, draft: int | None = None) -> Decoded:
    """Read a picture: the first frame, turned as its EXIF says, 8 bits, RGB, in sRGB, transparent parts white.

    With `draft` a JPEG is decoded at a reduced scale, to at least `draft` pixels a side: all of the file is read, in a
    third of the time. Raises `InputError` where the file is no whole picture of one of `FORMATS`, or has more than
    `MOST_PIXELS`.
    """
    notes: list[str] = []
    with _opened(file) as image:
        width, height = image.size
        if image.format in ("GIF", "WEBP", "TIFF", "AVIF") and getattr(image, "is_animated", False):
            notes.append("the first frame of several")
        if image.format == "PNG":
            check_png(file)
        turn = _orientation(image)
        if draft:
            image.draft(None, (draft, draft))
        image.load()
        if turn in TURNS:
            notes.append("turned as EXIF says")
            if image.format == "TIFF":  # Pillow has turned it
                width, height = image.size
            else:
                width, height = (height, width) if turn > 4 else (width, height)
                image = image.transpose(TURNS[turn])
        picture = _in_srgb(image, notes)
    picture.info.clear()  # profile and EXIF hold no longer
    return Decoded(picture, (width, height), tuple(notes))


def pixels(file: Path) -> int:
    """How many pixels a picture has, by its header. Raises `InputError` as `decode` does, but for what comes later."""
    with _opened(file) as image:
        return image.width * image.height


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    if require_file(file).st_size == 0:
        raise InputError(f"{file} is empty: replace or remove it")
    with ONE_AT_A_TIME:
        yield from _guarded(file)


def _guarded(file):
    bound = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = None  # ours is checked below, in words of its own
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(
                    f"{file} has {image.width} × {image.height} pixels: at most {MOST_PIXELS // 10**6} million; "
                    "make it smaller"
                )
            yield image
    except InputError:
        raise
    except Image.UnidentifiedImageError:
        raise InputError(f"{file} is not a readable picture ({_what(file)}): replace or remove it") from None
    except Exception as error:  # a damaged file can raise anything in a decoder
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file} is not a readable picture ({why}): replace or remove it") from None
    finally:
        Image.MAX_IMAGE_PIXELS = bound


def _what(file):
    """Why no decoder knows a file."""
    with file.open("rb") as opened:
        head = opened.read(16)
    if head[4:8] == b"ftyp":
        return f"it is of the kind {head[8:12].decode('ascii', 'replace')!a}, as HEIC is; convert it to JPEG or PNG"
    return f"it is none of {', '.join(FORMATS)}"


def _orientation(image):
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing, and the picture is none the worse
        return 1


def _in_srgb(image: Image.Image, notes: list[str]) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        notes.append("scaled to 8 bits")
        image = _eight_bits(image)
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").histogram()[255] < image.width * image.height:
            notes.append("transparent parts became white")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "LAB":
        return _transformed(image, ImageCms.createProfile("LAB"), "LAB", notes)
    if profile:
        try:
            return _by_profile(image, grey, profile, notes)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notes.append("a colour profile that cannot be used, so ignored")
    elif image.mode == "CMYK":
        notes.append("CMYK without a colour profile, converted roughly")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image):
    """Grey values of 16 or 32 bits or floats, as 8 bits: by the range of their type, or by their own."""
    values = np.array(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite numbers")
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    elif low >= 0:
        bounds = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        low, high = 0.0, next((bound for bound in bounds if high <= bound), high)
    scaled = Image.fromarray(((values - low) * (255 / ((high - low) or 1))).round().astype(np.uint8))
    if isinstance(clear := image.info.get("transparency"), int):  # the grey value that is transparent
        scaled.paste(255, mask=Image.fromarray(values == clear))
    return scaled


def _by_profile(image, grey, profile, notes):
    """In sRGB, by the profile that the file holds; unchanged where that is sRGB itself. Raises what ImageCms raises."""
    source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    fits = {"CMYK": image.mode == "CMYK", "GRAY": grey, "RGB": image.mode != "CMYK"}
    if not fits.get(space):
        raise ValueError(f"a profile for {space} in a picture of mode {image.mode}")
    mode = "L" if space == "GRAY" else space
    name = re.sub(r"[^\w .,()+-]", "", ImageCms.getProfileDescription(source))[:40].strip()
    return _transformed(image if image.mode == mode else image.convert(mode), source, name or "its profile", notes)


def _transformed(image, source, name, notes):
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    transform: Any = ImageCms.buildTransform(source, SRGB, image.mode, "RGB", intent, flags)
    if image.mode in ("L", "RGB"):
        levels = np.stack(np.meshgrid(*[np.arange(18, dtype=np.uint8) * 15] * 3), -1)  # (18, 18, 18, 3): 0…255
        probe = Image.fromarray(levels.reshape(18, -1, 3)).convert(image.mode)
        moved = np.array(transform.apply(probe)).astype(int) - np.array(probe.convert("RGB"))
        if np.abs(moved).max() <= 2:  # sRGB under whatever name: its pixels stay as they are
            return image.convert("RGB")
    notes.append(f"converted from {name} to sRGB")
    return transform.apply(image)

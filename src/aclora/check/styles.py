"""One style's pictures, captions and reference, read as the stages read them."""

from pathlib import Path
from typing import Any, cast

from aclora.check.networks import check_network
from aclora.core import discovery, params
from aclora.core.errors import InputError, did_you_mean
from aclora.data.captions import caption_folder
from aclora.data.corruption import DataConfig, corrupted, limited
from aclora.data.pictures import read_pictures
from aclora.models.captioner import CaptionsConfig


def check_style(name: str) -> tuple[str, list[str]]:
    """Read a style's pictures, captions and reference; what it would train on in a line, and warnings.

    Raises `InputError` for the first mistake.
    """
    style = params.load(f"styles.{name}", params.StyleConfig)
    captions, data = params.load("captions", CaptionsConfig), params.load("data", DataConfig)
    write = (lambda picture: "to be written") if captions.model else None
    rows: list[Any] = caption_folder(Path(style.pictures), style.trigger, write, "captioner")
    written = sum(row.source == "captioner" for row in rows)
    if written and captions.model and Path(captions.model).is_dir():
        aid = f"{written} pictures of {name} have no caption: write them, or name a BLIP captioner"
        check_network("captions.model", captions.model, "captioner", aid)
    chosen = limited(rows, [row.text for row in rows], data)
    if data.corrupt == "foreign" and data.foreign:
        foreign = caption_folder(Path(data.foreign), style.trigger, None, "")
        corrupted(*chosen, data, cast(Any, [(row, row.text) for row in foreign]))
    elif data.corrupt == "captions":
        corrupted(*chosen, data)
    check_reference(name, style)
    by = f" by {captions.model}" if written else ""
    return f"{name}: {len(rows)} pictures, {written} captions to be written{by}", []


def check_reference(name: str, style: params.StyleConfig) -> None:
    """What generated pictures are compared with: a package that draws the style, or a folder of at least 2 pictures."""
    knob, place = f"styles.{name}.reference = {style.reference!r}", Path(style.reference)
    if not place.exists():
        raise InputError(
            f"{knob}: no such folder; name one with other pictures of the style, or {style.pictures} itself"
        )
    if params.value("evaluate.reference") == "training":
        place = Path(style.pictures)
    if (place / "__init__.py").is_file() and not place.is_absolute():
        drawn = getattr(discovery.outside(".".join(place.parts), f"styles.{name}.reference"), "STYLES", [name])
        if name not in drawn:
            raise InputError(f"{knob} does not draw this style: name a folder of pictures; {did_you_mean(name, drawn)}")
    elif len(read_pictures(place)) < 2:
        raise InputError(f"{place} holds one picture; to compare with, at least 2 are needed: add some")

"""One style's pictures, captions and reference, read as the stages read them."""

from pathlib import Path

from aclora.check.networks import check_network
from aclora.core import discovery, params
from aclora.core.errors import InputError, did_you_mean
from aclora.data.captions import caption_folder, look_at_folder, prompt_notes
from aclora.data.corruption import DataConfig, corrupted_count, limited
from aclora.data.pictures import Pictures, look_at_pictures, shared_pictures
from aclora.models.captioner import CaptionsConfig
from aclora.models.sampling import read_prompts

CACHE = Path(".cache/pictures")


def check_style(name: str) -> tuple[str, list[str]]:
    """Read a style's pictures, captions and reference; what it would train on in a line, and warnings.

    Raises `InputError` for the first mistake.
    """
    style = params.load(f"styles.{name}", params.StyleConfig)
    captions, data = params.load("captions", CaptionsConfig), params.load("data", DataConfig)
    write = (lambda picture: "to be written") if captions.model else None
    others = [params.value(f"styles.{other}.trigger") for other in params.styles() if other != name]
    found = look_at_folder(Path(style.pictures), style.trigger, write, "captioner", CACHE, None, others)
    written = sum(row.source == "captioner" for row in found.captions)
    if written and captions.model and Path(captions.model).is_dir():
        aid = f"{written} pictures of {name} have no caption: write them, or name a BLIP captioner"
        check_network("captions.model", captions.model, "captioner", aid)
    warnings = [*found.notes, *check_reference(name, style, found.pictures)]
    prompts = params.value("generate.prompts")
    warnings += [f"{prompts}: {note}" for note in prompt_notes(read_prompts(Path(prompts)), style.trigger)]
    check_data(data, len(found.captions), style.trigger)
    by = f" by {captions.model}" if written else ""
    return f"{name}: {len(found.captions)} pictures, {written} captions to be written{by}", warnings


def check_data(data: DataConfig, pictures: int, trigger: str) -> None:
    """The section `data` asks for no more pictures than there are. Raises `InputError`."""
    chosen, _ = limited(range(pictures), [""] * pictures, data)
    foreign = 0
    if data.corrupt == "foreign" and data.foreign:
        foreign = len(caption_folder(Path(data.foreign), trigger, None, "", CACHE))
    corrupted_count(data, len(chosen), foreign)


def check_reference(name: str, style: params.StyleConfig, trained: Pictures) -> list[str]:
    """What generated pictures are compared with: a package that draws the style, or a folder of at least 2 pictures.

    Returns warnings. Raises `InputError`.
    """
    knob, place = f"styles.{name}.reference = {style.reference!r}", Path(style.reference)
    if not place.is_dir():
        raise InputError(
            f"{knob}: no such folder; name one with other pictures of the style, or {style.pictures} itself"
        )
    if params.value("evaluate.reference") == "training":
        place = Path(style.pictures)
    if (place / "__init__.py").is_file() and not place.is_absolute():
        drawn = getattr(discovery.outside(".".join(place.parts), f"styles.{name}.reference"), "STYLES", [name])
        if name not in drawn:
            raise InputError(f"{knob} does not draw this style: name a folder of pictures; {did_you_mean(name, drawn)}")
        return []
    found = trained if place == Path(style.pictures) else look_at_pictures(place, CACHE)
    if len(found.digests) < 2:
        raise InputError(f"{place} holds one picture; to compare with, at least 2 are needed: add some")
    return [] if found is trained else [*found.notes, *shared_pictures(trained, found)]

"""One style's pictures, captions and reference, read as the stages read them."""

from pathlib import Path

from aclora.check.networks import check_captioner
from aclora.core import discovery, params
from aclora.core.errors import InputError, did_you_mean
from aclora.core.hub import trained_on
from aclora.core.model import ModelConfig
from aclora.core.model_check import prompt_readers
from aclora.core.prompts import check_trigger, fit_prompts, note_of_lost
from aclora.data.captions import caption_folder, look_at_folder, prompt_notes, with_trigger
from aclora.data.corruption import DataConfig, corrupted_count, limited
from aclora.data.pictures import Pictures, look_at_pictures, shared_pictures
from aclora.models.captioner import CaptionsConfig
from aclora.models.sampling import read_prompts


def check_style(name: str, cache: Path, networks: Path) -> tuple[str, list[str]]:
    """Read a style's pictures, captions and reference; what it would train on in a line, and warnings.

    What was seen of large pictures is kept in the folder `cache`, which networks could be loaded in `networks`. Raises
    `InputError` for the first mistake.
    """
    style = params.load(f"styles.{name}", params.StyleConfig)
    captions, data = params.load("captions", CaptionsConfig), params.load("data", DataConfig)
    write = (lambda picture: "to be written") if captions.model else None
    others = [params.value(f"styles.{other}.trigger") for other in params.styles() if other != name]
    found = look_at_folder(Path(style.pictures), style.trigger, write, "captioner", cache, None, others)
    written = sum(row.source == "captioner" for row in found.captions)
    warnings = [*found.notes, *check_reference(name, style, found.pictures, cache)]
    if written and captions.model:
        check_captioner(captions, networks)
        if known := trained_on(captions.model):
            warnings.append(
                f"{written} captions will be written by {captions.model}, which was trained on {known}: of other "
                "pictures it may say what they do not show; write them yourself, or name another captioner"
            )
    warnings += check_lengths(name, style, {row.file: row.text for row in found.captions if row.source != "captioner"})
    check_data(data, len(found.captions), style.trigger, cache)
    by = f" by {captions.model}" if written else ""
    return f"{name}: {len(found.captions)} pictures, {written} captions to be written{by}", warnings


def check_lengths(name: str, style: params.StyleConfig, texts: dict[str, str]) -> list[str]:
    """What the model's text encoders do not see of captions with the trigger, by file, and of prompts; warnings."""
    file = params.value("generate.prompts")
    prompts = read_prompts(Path(file))
    warnings = [f"{file}: {note}" for note in prompt_notes(prompts, style.trigger)]
    readers = prompt_readers(params.load("model", ModelConfig))
    if readers is None:
        return warnings  # of a model on the hub that is not here yet
    warnings += check_trigger(name, style.trigger, readers)
    named = {text: f"{style.pictures}/{picture}" for picture, text in texts.items()}
    named |= {with_trigger(prompt, style.trigger): f"{file}: {prompt!r}" for prompt in prompts}
    _, lost = fit_prompts(named, style.trigger, readers)
    return warnings + [note_of_lost(named[text], words, style.trigger, readers) for text, words in lost.items()]


def check_data(data: DataConfig, pictures: int, trigger: str, cache: Path) -> None:
    """The section `data` asks for no more pictures than there are. Raises `InputError`."""
    chosen, _ = limited(range(pictures), [""] * pictures, data)
    foreign = 0
    if data.corrupt == "foreign" and data.foreign:
        try:
            foreign = len(caption_folder(Path(data.foreign), trigger, None, "", cache))
        except InputError as error:
            raise InputError(f"data.foreign = {data.foreign!r}: {error}") from None
    corrupted_count(data, len(chosen), foreign)


def check_reference(name: str, style: params.StyleConfig, trained: Pictures, cache: Path) -> list[str]:
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
        module = discovery.outside(".".join(place.parts), f"styles.{name}.reference")
        if not callable(getattr(module, "reference", None)):
            raise InputError(f"{knob} is a Python package without a function `reference`: name a folder of pictures")
        drawn = getattr(module, "STYLES", [name])
        if name not in drawn:
            raise InputError(f"{knob} does not draw this style: name a folder of pictures; {did_you_mean(name, drawn)}")
        return []
    found = trained if place == Path(style.pictures) else look_at_pictures(place, cache)
    if len(found.digests) < 2:
        raise InputError(f"{place} holds one picture; to compare with, at least 2 are needed: add some")
    return [] if found is trained else [*found.notes, *shared_pictures(trained, found)]

"""A caption for every picture: its author's own, or one written by BLIP."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from aclora.dataset import Caption, picture_files, read_picture, sha256
from aclora.errors import InputError, require


@dataclass(frozen=True)
class Captions:
    """The `captions` section of params.yaml."""

    model: str | None = None
    revision: str | None = None
    watch: str = ""
    max_new_tokens: int = 30

    def __post_init__(self):
        require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1")
        if self.model and Path(self.model).is_dir() and Path(self.watch) != Path(self.model):
            raise InputError(
                f"watch = {self.watch!r}: must be the captioner's folder, {self.model}, or DVC would miss changes in it"
            )
        if self.model and not Path(self.model).is_dir() and self.revision is None:
            raise InputError(
                f"model = {self.model!r}: no such folder; for a hub name give captions.revision, the commit meant"
            )


def with_trigger(text: str, trigger: str) -> str:
    """What calls a style: the trigger at the prompt's end."""
    return f"{text.strip().rstrip('.,')}, {trigger.strip()}"


def caption_folder(
    folder: Path, trigger: str, write: Callable[[Image.Image], str] | None, writer: str
) -> list[Caption]:
    """The captions of a folder's pictures, in their order.

    A picture's caption is its `name.txt`, or its line in `metadata.jsonl`, or what `write` says of
    it. Raises `InputError` for a caption that is empty, not UTF-8, or missing with no `write`.
    """
    listed = _metadata(folder / "metadata.jsonl")
    out = []
    for file in picture_files(folder):
        picture = read_picture(file)  # an unreadable one is found here, before any training
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


def blip(config: Captions) -> Callable[[Image.Image], str]:
    """A captioner: BLIP (arXiv 2201.12086) from a folder or the hub, greedy, so that it repeats itself.

    Raises `InputError` if it cannot be loaded, or comes with the empty vocabulary that transformers
    makes up where a tokenizer's files are missing.
    """
    import torch
    from transformers import AutoTokenizer, BlipForConditionalGeneration
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    where = {"revision": config.revision} if config.revision else {}
    try:
        model = BlipForConditionalGeneration.from_pretrained(config.model, dtype=torch.float32, **where).eval()
        look = BlipImageProcessorPil.from_pretrained(config.model, **where)
        tokenizer = AutoTokenizer.from_pretrained(config.model, **where)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"captions.model = {config.model!r} cannot be loaded: {first}") from None
    if len(tokenizer) < 100:
        raise InputError(
            f"captions.model = {config.model!r}: its tokenizer knows {len(tokenizer)} words; its vocab.txt is missing"
        )

    def write(picture: Image.Image) -> str:
        pixels = look(picture, return_tensors="pt").pixel_values
        with torch.no_grad():
            tokens = model.generate(pixel_values=pixels, max_new_tokens=config.max_new_tokens, do_sample=False)
        return tokenizer.decode(tokens[0], skip_special_tokens=True)

    return write


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

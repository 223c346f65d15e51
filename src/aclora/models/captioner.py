"""A captioner for pictures without a caption: BLIP (arXiv 2201.12086)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field, model_validator

from aclora.core.config import Config
from aclora.core.errors import InputError


class CaptionsConfig(Config):
    """The `captions` section of params.yaml."""

    model: str | None
    revision: str | None
    watch: str
    max_new_tokens: int = Field(ge=1, le=1000)

    @model_validator(mode="after")
    def _check_rules(self):
        if self.model and Path(self.model).is_dir() and Path(self.watch) != Path(self.model):
            raise InputError(
                f"watch = {self.watch!r}: must be the captioner's folder, {self.model}, or DVC would miss changes in it"
            )
        if self.model and not Path(self.model).is_dir() and self.revision is None:
            raise InputError(
                f"model = {self.model!r}: no such folder; for a hub name give captions.revision, its commit"
            )
        return self


def blip(config: CaptionsConfig) -> Callable[[Image.Image], str]:
    """A captioner: BLIP (arXiv 2201.12086) from a folder or the hub, greedy, so that it repeats itself.

    Raises `InputError` if it cannot be loaded, or comes with the empty vocabulary that transformers
    makes up where a tokenizer's files are missing.
    """
    import torch
    from transformers import AutoTokenizer, BlipForConditionalGeneration
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    name: Any = config.model
    where: Any = {"revision": config.revision} if config.revision else {}
    try:
        model: Any = BlipForConditionalGeneration.from_pretrained(name, dtype=torch.float32, **where).eval()
        processor = BlipImageProcessorPil.from_pretrained(name, **where)
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"captions.model = {config.model!r} cannot be loaded: {first}") from None
    if len(tokenizer) < 100:
        raise InputError(
            f"captions.model = {config.model!r}: its tokenizer knows {len(tokenizer)} words; its vocab.txt is missing"
        )

    def write(picture: Image.Image) -> str:
        pixels = processor(picture, return_tensors="pt").pixel_values
        with torch.no_grad():
            tokens = model.generate(pixel_values=pixels, max_new_tokens=config.max_new_tokens, do_sample=False)
        return tokenizer.decode(tokens[0], skip_special_tokens=True)

    return write

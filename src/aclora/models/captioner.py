"""A captioner for pictures without a caption: BLIP (arXiv 2201.12086)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field, model_validator

from aclora.core.config import Config
from aclora.core.errors import InputError
from aclora.core.hub import complete, is_commit, loading, quieten
from aclora.core.network_files import check_network, check_tokenizer, check_weights, read_object


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
        if self.model and not Path(self.model).is_dir() and not is_commit(self.revision or ""):
            raise InputError(
                f"model = {self.model!r}: no such folder; for a hub name give captions.revision, its commit, "
                f"7 to 40 hex digits (it is {self.revision!r})"
            )
        return self


def check_captioner(folder: Path) -> None:
    """A captioner's folder is a BLIP's and its files are whole. Loads nothing. Raises `ValueError`."""
    kind = read_object(folder / "config.json").get("model_type")
    if kind != "blip":
        raise ValueError(f"config.json says that it is a {kind}, must be a blip")
    read_object(folder / "preprocessor_config.json")
    check_network(folder)
    check_tokenizer(folder)
    if not (folder / "pytorch_model.bin").is_file():  # read as tensors alone
        check_weights(folder, "model.safetensors")


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
    quieten()
    with loading("captions.model", name):
        if Path(name).is_dir():
            check_captioner(Path(name))
        model: Any = complete(
            BlipForConditionalGeneration.from_pretrained(name, dtype=torch.float32, output_loading_info=True, **where)
        )
        processor = BlipImageProcessorPil.from_pretrained(name, **where)
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
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

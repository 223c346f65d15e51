"""Prompts × seeds → pictures, and the sheet that shows them."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field

from aclora.core.config import LAST_SEED, Config
from aclora.core.errors import InputError, quoted
from aclora.core.model import Model
from aclora.core.reading import control_character, read_text
from aclora.core.tensors import read_tensors
from aclora.lora.export import named_tensors, scale_of_one
from aclora.lora.files import Factors, read
from aclora.lora.names import component_of
from aclora.lora.settings import check_tuner

OTHER_BASE = "it is of another base model, or damaged: train again"
MOST_BYTES = 1_000_000  # of a file of prompts
LONGEST = 1000  # characters of a prompt; a model reads a few hundred


class GenerateConfig(Config):
    """The `generate` section of params.yaml."""

    prompts: str
    images_per_prompt: int = Field(ge=1, le=10_000)
    without_trigger: int = Field(ge=0, le=10_000)
    seed: int = Field(ge=0, le=LAST_SEED)
    num_inference_steps: int = Field(ge=1, le=1000)
    guidance_scale: float = Field(ge=0, le=100)
    batch_size: int = Field(ge=1, le=10_000)
    adapter: Literal["trained", "signal"]
    sheet_rows: int = Field(ge=1, le=1000)


def read_prompts(file: Path) -> list[str]:
    """One prompt a line; blank lines do not count.

    Raises `InputError` where the file is missing or no UTF-8 text, or where a line is no prompt.
    """
    if not file.exists():
        raise InputError(f"generate.prompts = {str(file)!r}: no such file; it holds one prompt a line")
    prompts = []
    for number, line in enumerate(re.split("\r\n|\r|\n", read_text(file, MOST_BYTES)), 1):
        if letter := control_character(line):
            raise InputError(f"{file}, line {number} has {letter} in it: write it as plain text, in UTF-8")
        prompt = line.strip()
        if prompt and not any(letter.isalnum() for letter in prompt):
            raise InputError(f"{file}, line {number} is a prompt without a word, {prompt[:40]!r}: correct or remove it")
        if len(prompt) > LONGEST:
            raise InputError(f"{file}, line {number} has {len(prompt)} characters: at most {LONGEST} are a prompt")
        if prompt:
            prompts.append(prompt)
    if not prompts:
        raise InputError(f"{file} holds no prompts: write one a line")
    return prompts


def check_adapter(model: Model, place: Path) -> Factors | dict[str, torch.Tensor]:
    """An adapter that the model's network can take: the factors of a LoRA file, the tensors of PEFT's folder.

    Raises `InputError` where it is damaged or not finite, where it was trained on another network (of another family,
    or with other layers), and where its settings are more than names and numbers.
    """
    if place.is_dir():
        check_tuner(place)
        tensors = read_tensors(place / "adapter_model.safetensors", OTHER_BASE)
        return {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}
    found = read(place)
    if found.text_encoder:
        raise InputError(f"{place} changes text encoders too: `aclora export --to diffusers` leaves that out")
    for layer, (a, b) in found.factors.items():
        shape = (b.shape[0], *a.shape[1:])
        if (has := _shape(model.network, layer)) != shape:
            fault = f"has no place in the {model.component}" if has is None else f"is {shape}, but {has} in the model"
            raise InputError(f"{place}: {component_of([layer])}.{layer} {fault}; it is of another base model")
    return found.factors


def load_adapter(model: Model, place: Path) -> None:
    """Put an adapter into the model's network: a LoRA file, or a folder in PEFT's format.

    Raises `InputError` as `check_adapter` does, and where PEFT cannot load the folder.
    """
    found: Any = check_adapter(model, place)
    network = model.network
    if not place.is_dir():
        network.load_lora_adapter(named_tensors(found), prefix=None, metadata=scale_of_one(found))
        return

    from peft import PeftConfig, set_peft_model_state_dict

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Unexpected keyword", UserWarning)  # PEFT would leave them out
            config = PeftConfig.from_pretrained(str(place))
        network.add_adapter(config)
        keys = set_peft_model_state_dict(network, found, adapter_name="default")
    except Exception as error:  # of any kind: PEFT checks little
        raise InputError(f"{place} cannot be loaded ({quoted(str(error).strip(), 200)}): {OTHER_BASE}") from None
    if keys.unexpected_keys:
        first = keys.unexpected_keys[0]
        raise InputError(f"{place}: {quoted(first)} has no place in the {model.component}; it is of another base model")
    if missing := [key for key in keys.missing_keys if "default" in key.split(".")]:
        raise InputError(f"{place} lacks {missing[0]}: {OTHER_BASE}")


def _shape(network, layer):
    """The shape of a layer's weight, or None where the network has no such layer."""
    try:
        weight = network.get_submodule(layer).weight
    except AttributeError:
        return None
    return tuple(weight.shape) if isinstance(weight, torch.Tensor) else None


def sample(
    model: Model, prompts: list[str], seeds: list[int], config: GenerateConfig, size: int
) -> Iterator[Image.Image]:
    """One picture of side `size` for each pair of prompt and seed, in their order.

    Each picture's noise comes from its own seed, on the CPU: neither batches nor devices change it.
    """
    for start in range(0, len(prompts), config.batch_size):
        part = slice(start, start + config.batch_size)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
        yield from model.sample(prompts[part], generators, size, config.num_inference_steps, config.guidance_scale)


def nearest(pictures: list[Image.Image], among: list[Image.Image], side: int = 32) -> list[int]:
    """For each picture the index of the one in `among` with the least squared difference in pixels.

    Both are compared as RGB at `side` × `side`: what looks alike at a glance.
    """
    a, b = (torch.stack([_small(p, side) for p in ps]) for ps in (pictures, among))
    return torch.cdist(a, b).argmin(1).tolist()


def contact_sheet(
    rows: list[str], columns: list[str], pictures: list[list[Image.Image]], cell: int = 192
) -> Image.Image:
    """A labelled table of pictures, a row each prompt; every picture is fitted into `cell` pixels."""
    font, pad, label = ImageFont.load_default(13), 6, 30
    sheet = Image.new("RGB", (len(columns) * (cell + pad) + pad, label + len(rows) * (cell + label)), "white")
    draw = ImageDraw.Draw(sheet)
    for j, name in enumerate(columns):
        draw.text((pad + j * (cell + pad), 8), name, "black", font)
    for i, (text, line) in enumerate(zip(rows, pictures, strict=True)):
        top = label + i * (cell + label)
        for j, picture in enumerate(line):
            # small pictures are enlarged by whole pixels, so that they look as they are
            small = max(picture.size) < cell
            way = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
            sheet.paste(picture.resize((cell, cell), way), (pad + j * (cell + pad), top))
        draw.text((pad, top + cell + 5), text, "black", font)
    return sheet


def _small(picture, side):
    small = picture.convert("RGB").resize((side, side), Image.Resampling.BOX)
    return torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).float()

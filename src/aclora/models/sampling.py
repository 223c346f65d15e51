"""Prompts × seeds → pictures, and the sheet that shows them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import load_file

from aclora.core.config import Config
from aclora.core.errors import InputError
from aclora.core.model import Model
from aclora.core.reading import control_character, read_text

MOST_BYTES = 1_000_000  # of a file of prompts
LONGEST = 1000  # characters of a prompt; a model reads a few hundred


class GenerateConfig(Config):
    """The `generate` section of params.yaml."""

    prompts: str
    images_per_prompt: int = Field(ge=1)
    without_trigger: int = Field(ge=0)
    seed: int = Field(ge=0)
    num_inference_steps: int = Field(ge=1)
    guidance_scale: float = Field(ge=0)
    batch_size: int = Field(ge=1)
    adapter: Literal["trained", "signal"]
    sheet_rows: int = Field(ge=1)


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


def load_adapter(model: Model, place: Path) -> None:
    """Put an adapter into the model's network: a file in diffusers' format, or a folder in PEFT's.

    Raises `InputError` where it was trained on another network: of another family, or with other layers.
    """
    network = model.network
    if place.is_file():
        with safe_open(place, "pt") as file:
            keys = list(file.keys())
        foreign = next((key for key in keys if not key.startswith(f"{model.component}.")), None)
        layers = {key.removeprefix(f"{model.component}.").rpartition(".lora_")[0]: key for key in keys}
        foreign = foreign or next((key for layer, key in layers.items() if not _has(network, layer)), None)
        if not foreign:
            network.load_lora_adapter(place.parent, weight_name=place.name, prefix=model.component)
    else:
        from peft import PeftConfig, set_peft_model_state_dict

        network.add_adapter(PeftConfig.from_pretrained(str(place)))
        tensors = load_file(place / "adapter_model.safetensors")
        bare = {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}
        unexpected = set_peft_model_state_dict(network, bare, adapter_name="default").unexpected_keys
        foreign = next(iter(unexpected), None)
    if foreign:
        raise InputError(f"{place}: {foreign} has no place in the {model.component}; it is of another base model")


def _has(network, layer):
    try:
        network.get_submodule(layer)
    except AttributeError:
        return False
    return True


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

"""Tiny models of the real classes with random weights, and small helpers."""

import os
import re

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may wait for a network

from pathlib import Path

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]


def locked(name: str = "requirements.lock") -> dict[str, str]:
    """The version of every package in a lock file."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.M))


def section(name: str, into: type, /, **changes):
    """A section as the project's params.yaml has it, with changes: the code has no defaults."""
    from aclora.core import params

    return into(**params.value(name, ROOT / params.FILE) | changes)


def model_config(folder: Path, family: str = "stable_diffusion"):
    """The section `model` for a pipeline's folder."""
    from aclora.core.model import ModelConfig

    return section("model", ModelConfig, name=str(folder), watch=str(folder), family=family)


def make_method(name: str, /, **knobs):
    """A method with its section as params.yaml has it, with changes."""
    from aclora.core.method import method_named

    module = method_named(name)
    return module(section(name, module.config_type, **knobs))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A StableDiffusionPipeline's folder: 16×16 pictures, latents 4×8×8, a UNet of width 32."""
    from miniature import text_to_image, tokenizer
    from miniature.vae import build_vae

    folder = tmp_path_factory.mktemp("tiny") / "pipeline"
    torch.manual_seed(0)
    tok = tokenizer.build_tokenizer(tokenizer.words())
    unet = text_to_image.build_unet((32, 32), 4, 8, 32)
    vae = build_vae((8, 16), 4, 16)
    text_to_image.save_pipeline(folder, vae, text_to_image.build_text_encoder(tok, 32, 1), tok, unet)
    return folder


@pytest.fixture(scope="session")
def tiny_sd3_folder(tmp_path_factory) -> Path:
    """A StableDiffusion3Pipeline's folder: 16×16 pictures, latents 8×8×8, a transformer of width 32."""
    from tests import tiny_sd3

    return tiny_sd3.build(tmp_path_factory.mktemp("tiny_sd3") / "pipeline")


def model_at(folder: Path, family: str = "stable_diffusion"):
    """The model in a folder, loaded afresh as the stages load it."""
    from aclora.core.model import load_model

    return load_model(model_config(folder, family=family))


@pytest.fixture
def tiny(tiny_folder):
    """The tiny Stable Diffusion, loaded afresh."""
    return model_at(tiny_folder)


@pytest.fixture
def tiny_sd3(tiny_sd3_folder):
    """The tiny Stable Diffusion 3, loaded afresh."""
    return model_at(tiny_sd3_folder, "stable_diffusion_3")


@pytest.fixture
def pictures_folder(tmp_path) -> Path:
    """Four small pictures, two captions in txt files and two in metadata.jsonl."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (20, 16), colour).save(folder / f"{i}.png")
    (folder / "0.txt").write_text("a red house\n", encoding="utf-8")
    (folder / "1.txt").write_text("a green tree.", encoding="utf-8")
    lines = ['{"file_name": "2.png", "text": "a blue boat"}', '{"file_name": "3.png", "caption": "a white star"}']
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(0)

"""The networks that params.yaml names, judged by their files: nothing is loaded, and nothing is fetched."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from aclora.core import discovery
from aclora.core.errors import InputError, require
from aclora.core.hub import hub_name
from aclora.core.method import Method
from aclora.core.model import Model, ModelConfig

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
# What must be beside an encoder's weights, alternatives joined by |. Another encoder is looked at when it is loaded.
BESIDE_WEIGHTS = {
    "clip": ("config.json", "preprocessor_config.json", "tokenizer.json|vocab.json"),
    "dino": ("config.json", "preprocessor_config.json"),
    "image_reward": ("tokenizer.json|vocab.txt",),
    "judge": ("config.json",),
    "captioner": ("config.json", "preprocessor_config.json", "tokenizer.json|vocab.txt"),
}


def check_networks(sections: dict) -> None:
    """The modules, folders and networks that the sections name. Raises `InputError`."""
    model, train, evaluate = sections["model"], sections["train"], sections["evaluate"]
    check_pipeline(model)
    discovery.find("encoders", train.feature_network, "train.feature_network", "ENCODER")
    if train.feature_loss > 0:
        aid = "or set train.feature_loss to 0"
        check_network("train.feature_encoder", train.feature_encoder, train.feature_network, aid)
    for knob, name in evaluate.encoders.items():
        if name:
            check_network(f"evaluate.{knob}", name, knob, "or set it to null to leave its figures out")
    for name in evaluate.figures:
        discovery.find_outside(name, "evaluate.figures")


def check_pipeline(model: ModelConfig) -> None:
    """A base model's folder is of its family and has every part that its index lists; a hub name passes."""
    family = discovery.load("models", model.family, "model.family", "MODEL")
    name, folder = model.name, Path(model.name)
    if not folder.is_dir():
        return  # ModelConfig has checked the form of a hub name
    parts = _config(folder / "model_index.json")
    if parts is None:
        raise InputError(f"model.name = {name!r}: its model_index.json is missing or damaged; name a diffusers folder")
    family.check_family(parts, model)
    for part, kind in parts.items():
        if isinstance(kind, list) and kind[0] and not (folder / part).is_dir():
            raise InputError(f"model.name = {name!r}: the folder {part}, which its model_index.json lists, is missing")


def check_network(knob: str, name: str, kind: str, aid: str) -> None:
    """A folder holds weights and what belongs beside them; anything else has a hub name's form. Raises `InputError`."""
    place = Path(name)
    if not place.exists():
        hub_name(knob, name, aid)
    if not place.is_dir():
        return
    found = {file.name for file in place.iterdir()}
    if not any(file.endswith(WEIGHTS) for file in found):
        raise InputError(f"{knob} = {name!r}: the folder holds no weights ({', '.join(WEIGHTS)}); {aid}")
    for wanted in BESIDE_WEIGHTS.get(kind, ()):
        if not found & set(wanted.split("|")):
            raise InputError(f"{knob} = {name!r}: the folder lacks {wanted.replace('|', ' or ')}; {aid}")


def check_fit(sections: dict, method: Method) -> None:
    """What the knobs ask of the base model is possible: the pictures' size, the sampler's steps, the adapter's rank.

    Of a hub name nothing is known yet, and nothing is checked. Raises `InputError`.
    """
    model, folder = sections["model"], Path(sections["model"].name)
    if not folder.is_dir():
        return
    family: type[Model] = discovery.load("models", model.family, "model.family", "MODEL")
    network = _config(folder / family.component / "config.json") or {}
    vae = _config(folder / "vae/config.json") or {}
    if isinstance(own := network.get("sample_size"), int) and isinstance(blocks := vae.get("block_out_channels"), list):
        factor = 2 ** (len(blocks) - 1)
        family.check_resolution(sections["train"].resolution, own * factor, factor, network)
    schedule = _config(folder / "scheduler/scheduler_config.json") or {}
    if isinstance(steps := schedule.get("num_train_timesteps"), int):
        asked = sections["generate"].num_inference_steps
        require(asked <= steps, "generate.num_inference_steps", asked, f"at most {steps}, the model's own steps")
    method.check_layers(linear_layers(folder / family.component, family.adapter_layers))


def linear_layers(folder: Path, ends: tuple[str, ...]) -> dict[str, nn.Linear]:
    """The linear layers of a network whose names end with one of `ends`, without values, by name.

    From the headers of its safetensors files; those of other files are not known.
    """
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as opened:
                for key in opened.keys():  # noqa: SIM118, it is no dict
                    name = key.removesuffix(".weight")
                    if name != key and f".{name}".endswith(tuple(f".{end}" for end in ends)):
                        d, k = opened.get_slice(key).get_shape()
                        found[name] = nn.Linear(k, d, bias=False, device=torch.device("meta"))
        except (SafetensorError, OSError, ValueError):
            continue  # a damaged file is named where weights are looked at
    return found


def _config(file: Path) -> dict[str, Any] | None:
    """A JSON object; None where the file is missing or damaged."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None

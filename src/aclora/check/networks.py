"""The networks that params.yaml names can be loaded: each is, once, and what was seen is remembered by its files'
sizes and times. Nothing is fetched."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from aclora.core import discovery, network_files
from aclora.core.errors import InputError, require
from aclora.core.files import digest, write_atomically
from aclora.core.hub import hub_name, loading
from aclora.core.method import Method
from aclora.core.model import Model, ModelConfig
from aclora.core.model_check import check_loading, check_values
from aclora.encoders.contract import Encoder
from aclora.evaluation.evaluate import figures_module
from aclora.models import captioner
from aclora.models.captioner import CaptionsConfig
from aclora.training.losses import load_look

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
# What must be beside an encoder's weights, alternatives joined by |. Another encoder is looked at when it is loaded.
BESIDE_WEIGHTS = {
    "clip": ("config.json", "preprocessor_config.json", "tokenizer.json|vocab.json"),
    "dino": ("config.json", "preprocessor_config.json"),
    "image_reward": ("tokenizer.json|vocab.txt",),
    "judge": ("config.json",),
}
POSITIONS = "max_position_embeddings"


def check_networks(sections: dict[str, Any], cache: Path) -> None:
    """The modules, folders and networks that the sections name. Raises `InputError`.

    Which networks could be loaded is remembered in the folder `cache`: to find out takes seconds.
    """
    model, train, evaluate = sections["model"], sections["train"], sections["evaluate"]
    check_model(model, cache)
    discovery.find("encoders", train.feature_network, "train.feature_network", "ENCODER")
    if train.feature_loss > 0:
        knob, name, network = "train.feature_encoder", train.feature_encoder, train.feature_network
        check_network(knob, name, network, "or set train.feature_loss to 0")
        once(cache, [knob, network], Path(name), lambda: load_look(network, name))
    classes = [c for module in evaluate.figures for c in getattr(figures_module(module), "ENCODERS", ())]
    for knob, name in evaluate.encoders.items():
        if name:
            aid = "or set it to null to leave its figures out"
            check_network(f"evaluate.{knob}", name, knob, aid)
            encoder = functools.partial(Encoder, knob, name, cache, classes=classes, remedy=aid)
            once(cache, [knob, *evaluate.figures], Path(name), lambda encoder=encoder: encoder().network)


def once(cache: Path, about: list[str], place: Path, look: Callable[[], object]) -> None:
    """Call `look` unless it has succeeded already with the files of `place` as they are; a hub name passes.

    It knows them by their sizes and times, and in another copy of the project (an experiment's) by their content.
    """
    if not place.exists():
        return
    files = [place] if place.is_file() else sorted(f for f in place.rglob("*") if f.is_file())
    stats = [(f.relative_to(place).as_posix(), f.stat()) for f in files]
    versions = [version(package) for package in ("diffusers", "transformers", "torch")]

    def mark(*files):
        return cache / hashlib.sha256(json.dumps([about, str(place), versions, *files]).encode()).hexdigest()[:32]

    at_once = mark(*((name, s.st_size, s.st_mtime_ns) for name, s in stats))
    if at_once.exists():
        return
    try:
        content = mark(digest(place))
    except OSError:  # `look` says which file cannot be read
        content = at_once
    if not content.exists():
        look()
    with contextlib.suppress(OSError):  # then the next check looks again
        write_atomically(content, b"")
        write_atomically(at_once, b"")


def check_model(model: ModelConfig, cache: Path) -> None:
    """A base model's folder is of its family, whole, and can be loaded; a hub name passes. Raises `InputError`."""
    folder = Path(model.name)
    if not folder.is_dir():
        discovery.load("models", model.family, "model.family", "MODEL", Model)
        return  # ModelConfig has checked the form of a hub name
    once(cache, [model.family], folder, lambda: (check_loading(model), check_values(model)))


def check_network(knob: str, name: str, kind: str, aid: str) -> None:
    """A folder holds whole weights and what belongs beside them; anything else has a hub name's form.

    Raises `InputError`.
    """
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
    with loading(knob, name):
        network_files.check_network(place)


def check_captioner(config: CaptionsConfig, cache: Path) -> None:
    """A captioner's folder is whole, can be loaded and say as much as it is asked for; a hub name passes.

    Raises `InputError`.
    """
    folder = Path(config.model or "")
    if config.model is None or not folder.is_dir():
        return
    with loading("captions.model", folder):
        captioner.check_captioner(folder)
        positions = network_files.read_object(folder / "config.json").get("text_config", {}).get(POSITIONS)
    if isinstance(positions, int):
        bound = f"below {positions}, which is all that the captioner can say"
        require(config.max_new_tokens < positions, "captions.max_new_tokens", config.max_new_tokens, bound)
    once(cache, ["captioner"], folder, lambda: captioner.blip(config))


def check_fit(sections: dict, method: Method) -> None:
    """What the knobs ask of the base model is possible: the pictures' size, the sampler's steps, the adapter's rank.

    Of a hub name nothing is known yet, and nothing is checked. Raises `InputError`.
    """
    model, folder = sections["model"], Path(sections["model"].name)
    if not folder.is_dir():
        return
    family: type[Model] = discovery.load("models", model.family, "model.family", "MODEL", Model)
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

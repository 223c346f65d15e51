"""`aclora check`: finds what would stop a run before any work begins, without loading a network."""

import json
from pathlib import Path
from typing import Any, cast

from aclora.cli.sections import SECTIONS, methods
from aclora.core import discovery, params
from aclora.core.errors import InputError, did_you_mean, require
from aclora.core.hub import hub_name
from aclora.core.method import Method, method_named
from aclora.core.model import ModelConfig
from aclora.data.captions import caption_folder
from aclora.data.corruption import corrupted, limited
from aclora.data.pictures import look_at_pictures
from aclora.models.sampling import read_prompts

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
# What must be beside an encoder's weights, alternatives joined by |. Another encoder is looked at when it is loaded.
BESIDE_WEIGHTS = {
    "clip": ("config.json", "preprocessor_config.json", "tokenizer.json|vocab.json"),
    "dino": ("config.json", "preprocessor_config.json"),
    "image_reward": ("tokenizer.json|vocab.txt",),
    "judge": ("config.json",),
    "captioner": ("config.json", "preprocessor_config.json", "tokenizer.json|vocab.txt"),
}
# Knobs whose paths dvc.yaml lists as dependencies: DVC stops where one does not exist.
DEPENDENCIES = (
    "captions.watch",
    "model.watch",
    "data.foreign",
    "train.watch",
    "evaluate.watch_figures",
    "evaluate.watch",
)


def check() -> None:
    """Read all of the user's that a run would read, and print what each style would train on.

    That is every section of params.yaml, and every folder, file, module and network that it names; of networks only
    whether their files are there. Raises `InputError` for the first mistake.
    """
    sections = load_sections()
    method = method_named(params.method())
    params.load(params.method(), method.config_type)
    check_networks(sections)
    check_signal(method, params.method(), sections["generate"])
    prompts = read_prompts(Path(sections["generate"].prompts))
    for name in params.styles():
        pictures, written = check_style(name, sections)
        by = f" by {sections['captions'].model}" if written else ""
        print(
            f"{name}: {pictures} pictures, {written} captions to be written{by}; {params.method()}, "
            f"{sections['train'].epochs} epochs; {len(prompts)} prompts"
        )


def load_sections() -> dict:
    """Every section by its name, those of methods that do not train too, if they are in the file."""
    others = {name: model for name, model in methods().items() if name in params.read()}
    return {name: params.load(name, model) for name, model in (SECTIONS | others).items()}


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
    for knob in DEPENDENCIES:
        section, _, field = knob.partition(".")
        path = getattr(sections[section], field)
        if path is not None and not Path(path).exists():
            raise InputError(f"{knob} = {path!r}: no such folder or file; DVC needs one even if no stage reads it")


def check_pipeline(model: ModelConfig) -> None:
    """A base model's folder is of its family and has every part that its index lists; a hub name passes."""
    family = discovery.load("models", model.family, "model.family", "MODEL")
    name, folder = model.name, Path(model.name)
    if not folder.is_dir():
        return  # ModelConfig has checked the form of a hub name
    index = folder / "model_index.json"
    try:
        parts = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"model.name = {name!r}: its model_index.json is missing or damaged; name a diffusers folder"
        ) from None
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


def check_signal(method: type[Method], name: str, generate) -> None:
    """`generate.adapter: signal` needs a method that writes one; a method that trains nothing needs no adapter."""
    if generate.adapter == "signal" and method.attach is not Method.attach:
        writes = method.signal is not Method.signal
        require(writes, "generate.adapter", "signal", f"trained: the method {name} writes no signal.safetensors")


def check_style(name: str, sections: dict) -> tuple[int, int]:
    """Read a style's pictures, captions and reference; how many pictures it has, and how many captions it lacks."""
    style = params.load(f"styles.{name}", params.StyleConfig)
    captions, data = sections["captions"], sections["data"]
    write = (lambda picture: "to be written") if captions.model else None
    rows: list[Any] = caption_folder(Path(style.pictures), style.trigger, write, "captioner")
    written = sum(row.source == "captioner" for row in rows)
    if written and Path(captions.model).is_dir():
        aid = f"{written} pictures of {name} have no caption: write them, or name a BLIP captioner"
        check_network("captions.model", captions.model, "captioner", aid)
    chosen = limited(rows, [row.text for row in rows], data)
    if data.corrupt == "foreign":
        foreign = caption_folder(Path(data.foreign), style.trigger, None, "")
        corrupted(*chosen, data, cast(Any, [(row, row.text) for row in foreign]))
    elif data.corrupt == "captions":
        corrupted(*chosen, data)
    check_reference(name, style, sections["evaluate"])
    return len(rows), written


def check_reference(name: str, style, evaluate) -> None:
    """What generated pictures are compared with: a package that draws the style, or a folder of at least 2 pictures."""
    knob, place = f"styles.{name}.reference = {style.reference!r}", Path(style.reference)
    if not place.exists():
        raise InputError(
            f"{knob}: no such folder; name one with other pictures of the style, or {style.pictures} itself"
        )
    if evaluate.reference == "training":
        place = Path(style.pictures)
    if (place / "__init__.py").is_file() and not place.is_absolute():
        drawn = getattr(discovery.outside(".".join(place.parts), f"styles.{name}.reference"), "STYLES", [name])
        if name not in drawn:
            raise InputError(f"{knob} does not draw this style: name a folder of pictures; {did_you_mean(name, drawn)}")
    elif len(look_at_pictures(place).digests) < 2:
        raise InputError(f"{place} holds one picture; to compare with, at least 2 are needed: add some")

"""A network's folder, looked at without loading its weights: what is missing, cut short, or of another format.

Everything here raises `ValueError` with the file's name; `core.hub.loading` adds the knob and its value.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from aclora.core.tensors import all_finite

# What a text encoder's tokenizer may be made of; files joined by + belong together.
VOCABULARIES = ("tokenizer.json", "vocab.json+merges.txt", "vocab.txt", "spiece.model", "tokenizer.model")
# Whose classes a pipeline's index may name, and the file of their weights.
LIBRARIES = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
# Parts of a pipeline that are no network, by the name that they begin with, and their file.
SETTINGS = {"scheduler": "scheduler_config.json", "feature_extractor": "preprocessor_config.json"}
NOT_LOADED = ("safety_checker",)
GIT_LFS = b"version https://git-lfs"


def check_pipeline(folder: Path) -> dict[str, Any]:
    """A diffusers pipeline's folder has every part that its index lists, each whole; returns the index."""
    index = read_object(folder / "model_index.json")
    for part, kind in index.items():
        place = folder / part
        if part in NOT_LOADED or kind == [None, None] or not (isinstance(kind, list) or place.is_dir()):
            continue  # no part: a setting of the pipeline, for instance
        check_kind(part, kind)
        if not place.is_dir():
            raise ValueError(f"the folder {part}, which its model_index.json lists, is missing")
        if settings := next((file for name, file in SETTINGS.items() if part.startswith(name)), None):
            read_object(place / settings)
        elif part.startswith("tokenizer"):
            check_tokenizer(place)
        else:
            read_object(place / "config.json")
            check_weights(place, LIBRARIES[kind[0]])
    return index


def check_kind(part: str, kind: Any) -> None:
    """What a pipeline's index says of a part is a class of diffusers or transformers: no other module is imported."""
    known = isinstance(kind, list) and len(kind) == 2 and kind[0] in LIBRARIES and isinstance(kind[1], str)
    if not known:
        raise ValueError(f"model_index.json: {part} = {kind!r}, must be a class of {' or '.join(LIBRARIES)}")


def check_network(folder: Path) -> None:
    """The JSON files of an encoder's or captioner's folder can be read, and its safetensors are whole."""
    for file in sorted(folder.glob("*.json")):
        read_object(file)
    for file in sorted(folder.glob("*.safetensors")):
        tensor_names(file)
    for file in sorted(folder.glob("*.safetensors.index.json")):
        _check_shards(file)


def check_weights(folder: Path, name: str) -> None:
    """A folder holds whole weights in the file `name`, or in several files that an index beside it lists.

    Weights in pickled files, which can run code, are refused.
    """
    if (folder / name).is_file():
        tensor_names(folder / name)
        return
    if (index := folder / f"{name}.index.json").is_file():
        _check_shards(index)
        return
    files = sorted(file for file in folder.iterdir() if file.is_file())
    if others := [file.name for file in files if file.suffix == ".safetensors"]:
        raise ValueError(f"{folder.name}/{others[0]} must have the name {name}")
    if pickled := [file.name for file in files if file.suffix in PICKLED]:
        raise ValueError(
            f"{folder.name}/{pickled[0]} is pickled, and such a file can run code: convert it to {name} (load it where "
            "you trust it, then save_pretrained)"
        )
    raise ValueError(f"{folder.name}/ holds no weights, {name}")


def check_tokenizer(folder: Path) -> None:
    """A tokenizer's folder has a vocabulary, and its JSON files can be read."""
    found = {file.name for file in folder.iterdir()}
    if not any(set(files.split("+")) <= found for files in VOCABULARIES):
        raise ValueError(f"{folder.name}/ lacks a vocabulary: {', or '.join(VOCABULARIES).replace('+', ' and ')}")
    for file in sorted(folder.glob("*.json")):
        read_object(file)


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file's object."""
    name = f"{file.parent.name}/{file.name}"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{name} is missing or cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{name} is damaged: it is no JSON; fetch it anew") from None
    if not isinstance(content, dict):
        raise ValueError(f"{name} is damaged: it must be a JSON object; fetch it anew")
    return content


def tensor_names(file: Path) -> set[str]:
    """The names of a safetensors file's tensors. Its header and its length are checked, its tensors are not read."""
    name = f"{file.parent.name}/{file.name}"
    try:
        with safe_open(file, "pt") as content:
            names = set(content.keys())
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error})") from None
    except SafetensorError as error:
        with file.open("rb") as content:
            if content.read(len(GIT_LFS)) == GIT_LFS:
                raise ValueError(f"{name} is git-lfs's note of a file: run `git lfs pull` where it came from") from None
        raise ValueError(f"{name} is cut short or damaged ({error}): fetch it anew") from None
    if not names:
        raise ValueError(f"{name} holds no tensors: fetch it anew")
    return names


def check_finite(file: Path) -> None:
    """Every value of a safetensors file is a finite number. Reads one tensor at a time."""
    with safe_open(file, "pt") as content:
        for name in content.keys():  # noqa: SIM118, it is no dict
            values = content.get_tensor(name)
            if values.is_floating_point() and not all_finite(values):
                raise ValueError(f"{file.parent.name}/{file.name}: a value of {name} is not a finite number")


def _check_shards(index):
    listed = read_object(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
        raise ValueError(f"{index.parent.name}/{index.name} is damaged: it must have a weight_map; fetch it anew")
    for shard in sorted(set(listed.values())):
        if Path(shard).name != shard or not (index.parent / shard).is_file():
            raise ValueError(f"{index.parent.name}/{shard}, which {index.name} lists, is missing")
        if lacks := {tensor for tensor, file in listed.items() if file == shard} - tensor_names(index.parent / shard):
            raise ValueError(f"{index.parent.name}/{shard} lacks {min(lacks)}: fetch it anew")

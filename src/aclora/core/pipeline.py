"""The parts of a diffusers pipeline one by one, so that nothing of them is made up in silence.

A pipeline that diffusers loads as a whole draws weights that its files lack at random, and makes up a vocabulary where
a tokenizer's files are missing.
"""

import contextlib
import importlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from aclora.core.hub import fitting, reason
from aclora.core.network_files import check_kind, check_tokenizer, read_object
from aclora.core.prompts import Reader, reader

NOT_LOADED = ("safety_checker", "image_encoder", "feature_extractor")


_shapes_only = ContextVar("_shapes_only", default=False)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Inside, `read_networks` reads no values: networks come with names and shapes, on torch's device meta."""
    token = _shapes_only.set(True)
    try:
        yield
    finally:
        _shapes_only.reset(token)


def read_networks(name: str, revision: str | None, index: dict[str, Any]) -> dict[str, Any]:
    """The networks that a pipeline's index lists, by part, in float32: a folder's, or of the hub at `revision`.

    Raises `ValueError` for a network that cannot be loaded,
    or whose files do not fit its config; weights in pickled files are not read.
    """
    networks = {}
    for part, kind in index.items():
        if part in NOT_LOADED or not isinstance(kind, list) or kind == [None, None]:
            continue
        if not issubclass(network_class := _class(part, kind), nn.Module):
            continue
        more: dict[str, Any] = {"revision": revision} if revision else {}
        more |= {"device_map": "meta"} if _shapes_only.get() else {}
        try:
            network_and_report = cast(Any, network_class).from_pretrained(
                name, subfolder=part, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **more
            )
            networks[part] = fitting(network_and_report)
        except Exception as error:  # each of the two libraries has its own kinds
            raise ValueError(f"{part}: {reason(error)}") from None
    return networks


def readers_of(pipe: Any, limits: dict[str, int]) -> list[Reader]:
    """The tokenizers of a loaded pipeline; `limits` as in `Model.prompt_limits`. Raises `ValueError`."""
    tokenizers = {part: pipe.components[part] for part in sorted(pipe.components) if part.startswith("tokenizer")}
    found = []
    for part, tokenizer in tokenizers.items():
        encoder = pipe.components.get(part.replace("tokenizer", "text_encoder"))
        if tokenizer is not None and encoder is not None:
            found.append(_reader(part, tokenizer, limits, encoder.config.to_dict()))
    return found


def readers_in(folder: Path, limits: dict[str, int]) -> list[Reader]:
    """The same of a pipeline's folder, without its weights. Raises `ValueError`, and what a tokenizer raises."""
    index, found = read_object(folder / "model_index.json"), []
    for part in sorted(part for part in index if part.startswith("tokenizer")):
        encoder = part.replace("tokenizer", "text_encoder")
        if index[part][0] is None or index.get(encoder, [None])[0] is None:
            continue
        check_tokenizer(folder / part)
        tokenizer = _class(part, index[part]).from_pretrained(folder / part)
        found.append(_reader(part, tokenizer, limits, read_object(folder / encoder / "config.json")))
    return found


def _reader(part, tokenizer, limits, config):
    words, rows = len(tokenizer), config.get("vocab_size")
    if words < 100 < (rows or 0) or (rows and words > rows):
        raise ValueError(f"{part} knows {words} words, its text encoder {rows}: put the model's own vocabulary there")
    return reader(part, tokenizer, limits.get(part), config.get("max_position_embeddings"))


def _class(part, kind):
    """The class of diffusers or transformers that a pipeline's index names."""
    check_kind(part, kind)
    found = getattr(importlib.import_module(kind[0]), kind[1], None)
    if not isinstance(found, type):
        raise ValueError(f"model_index.json: {part} = {kind!r}, of which there is no such class")
    return found

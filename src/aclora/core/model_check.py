"""A base model looked at before it is loaded: its files, its shapes, its tokenizers."""

from pathlib import Path

from aclora.core.discovery import load
from aclora.core.hub import cached, loading
from aclora.core.model import Model, ModelConfig
from aclora.core.network_files import check_finite, check_pipeline
from aclora.core.pipeline import readers_in, shapes_only
from aclora.core.prompts import Reader


def check_model(config: ModelConfig) -> None:
    """Of a folder: every part that its index lists is there and whole, and it is of the family; no weight is read.

    A hub name passes. Raises `InputError`.
    """
    family = _family(config)
    if Path(config.name).is_dir():
        with loading("model.name", config.name):
            index = check_pipeline(Path(config.name))
        family.check_family(index, config)


def check_loading(config: ModelConfig) -> Model | None:
    """A folder's model can be loaded: its weights have the names and shapes of its configs, its scheduler and
    tokenizers fit. None for a hub name.

    Reads no values, but imports diffusers, which takes seconds. The model is without values too, for questions about
    sizes and layers (`check_size`). Raises `InputError`.
    """
    check_model(config)
    if not Path(config.name).is_dir():
        return None
    with loading("model.name", config.name), shapes_only():
        model = _family(config).load(config)
        model.readers  # noqa: B018, a tokenizer that does not fit raises
        return model


def check_values(config: ModelConfig) -> None:
    """The weights in a folder are finite numbers, read one tensor at a time. Raises `InputError`."""
    with loading("model.name", config.name):
        for part in check_pipeline(Path(config.name)):
            for file in sorted(Path(config.name, part).glob("*.safetensors")):
                check_finite(file)


def prompt_readers(config: ModelConfig) -> list[Reader] | None:
    """The tokenizers of the model that `config` names, without its weights; None for one of the hub that is not here.

    Raises `InputError` for a tokenizer that cannot be loaded or does not belong to its text encoder.
    """
    folder = Path(config.name) if Path(config.name).is_dir() else cached(config.name, config.revision)
    if folder is None:
        return None
    with loading("model.name", config.name):
        return readers_in(folder, _family(config).prompt_limits)


def _family(config) -> type[Model]:
    return load("models", config.family, "model.family", "MODEL", Model)

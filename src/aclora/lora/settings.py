"""What a LoRA file says of its scale: PEFT's adapter_config.json, or the same in the header of diffusers' files.

Files come from strangers: every value is checked, and PEFT's patterns, which it runs as regular expressions, are read
as the names of layers that PEFT and diffusers write there. No pattern is ever run.
"""

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aclora.core.errors import InputError, quoted

MAX_BYTES = 2**26  # of an adapter_config.json
LONGEST_NAME = 500  # of a layer; real ones have about a hundred letters
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
# PEFT's ways to begin a training that change the base model's weights too: ΔW is then not B A
_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")

Rank = Annotated[int, Field(ge=1, le=2**20)]
Alpha = Annotated[float, Field(ge=-1e6, le=1e6)]


def is_layer(name: str) -> bool:
    """Can a network's layer be called so: words of letters, digits, _ and -, with dots between them."""
    return len(name) <= LONGEST_NAME and _NAME.fullmatch(name) is not None


class Settings(BaseModel):
    """PEFT's settings of a LoRA as far as ΔW depends on them, with PEFT's defaults."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    r: Rank = 8
    lora_alpha: Alpha = 8
    rank_pattern: dict[str, Rank] | None = None
    alpha_pattern: dict[str, Alpha] | None = None
    use_rslora: bool = False
    init_lora_weights: bool | str | None = True
    base_model_name_or_path: str | None = None


class Scales:
    """The scale of each layer by `Settings`; `place` is what errors name.

    Raises `InputError` for values of the wrong kind, patterns that are no names, and ways to begin that change the
    base.
    """

    def __init__(self, values: dict[str, Any], place: str):
        self.place = place
        try:
            self.settings = Settings.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(str(part)[:80] for part in first["loc"])
            raise InputError(f"{place}: {name} = {quoted(first['input'])}: {first['msg']}; save it again") from None
        begun = self.settings.init_lora_weights
        if isinstance(begun, str) and begun.lower().startswith(_CHANGES_THE_BASE):
            raise InputError(
                f"{place}: init_lora_weights = {quoted(begun)} changes the base model too: convert it to a plain LoRA "
                "with PEFT (save_pretrained with path_initial_model_for_weight_conversion)"
            )
        self._ranks = Patterns(self.settings.rank_pattern, f"{place}: rank_pattern")
        self._alphas = Patterns(self.settings.alpha_pattern, f"{place}: alpha_pattern")

    def of(self, layer: str, rank: int) -> float:
        """alpha / rank, or alpha / √rank. Raises `InputError` where the layer's rank is not what the settings say."""
        said = self._ranks.of(layer, self.settings.r)
        if said != rank:
            raise InputError(f"{self.place}: layer {layer} has rank {rank}, but its settings say {said}; save it again")
        alpha = self._alphas.of(layer, self.settings.lora_alpha)
        return alpha / (rank**0.5 if self.settings.use_rslora else rank)


class Patterns:
    """PEFT's rank_pattern or alpha_pattern, for which the first pattern counts that a layer's name ends with.

    A pattern is a layer's name or its end from a dot on; `^` stands before a whole name, `.*\\.` before one that is not
    the whole. Raises `InputError`, which begins with `named`, for any other.
    """

    def __init__(self, patterns: dict[str, Any] | None, named: str):
        self._whole, self._end, self._inner = {}, {}, {}
        for order, (pattern, value) in enumerate((patterns or {}).items()):
            bare = pattern.removeprefix("^").removesuffix("$")
            inner = bare.startswith(r".*\.")
            table = self._inner if inner else self._whole if pattern.startswith("^") else self._end
            name = re.sub(r"\\([.-])", r"\1", bare.removeprefix(r".*\.") if inner else bare)
            if not is_layer(name):
                raise InputError(f"{named} has {quoted(pattern)}: must be a layer's name, for no expression is run")
            table.setdefault(name, (order, value))

    def of(self, layer: str, default: Any) -> Any:
        """What the patterns say of a layer."""
        words = layer.split(".")
        ends = [".".join(words[i:]) for i in range(len(words))]
        found = [self._whole.get(layer), *map(self._end.get, ends), *map(self._inner.get, ends[1:])]
        return min((f for f in found if f), default=(0, default))[1]


def parsed(text: str | bytes, place: str) -> dict[str, Any]:
    """A JSON object from a stranger. Raises `InputError` where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{place} is no JSON object: save the adapter again")
    return found


def peft_config(folder: Path) -> dict[str, Any]:
    """PEFT's adapter_config.json as it stands. Raises `InputError` where it is missing, or no JSON object."""
    file = folder / "adapter_config.json"
    if not file.exists():
        raise InputError(
            f"{folder} has PEFT's tensors: adapter_config.json, which has their alpha, must lie beside them"
        )
    if not file.is_file():
        raise InputError(f"{file} is no file: save the adapter again")
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    if len(text) > MAX_BYTES:
        raise InputError(f"{file} has more than {MAX_BYTES} bytes: it is no adapter's")
    return parsed(text, str(file))


def check_tuner(folder: Path) -> None:
    """Raise `InputError` unless a folder's adapter_config.json, of any tuner of PEFT's, has names and numbers alone.

    PEFT runs some of its texts as regular expressions and imports a module that another names.
    """
    place = folder / "adapter_config.json"
    config = peft_config(folder)
    for key in ("peft_type", "target_modules"):
        if not config.get(key):
            raise InputError(f"{place}: {key} is missing: train again")
    if not isinstance(config["target_modules"], list):
        raise InputError(f"{place}: target_modules = {quoted(config['target_modules'])}: must be a list; train again")
    if config.get("megatron_config"):
        raise InputError(f"{place}: megatron_config is set: must be null, for PEFT would import what it names")
    for key, value in config.items():
        if key not in ("base_model_name_or_path", "revision", "peft_version"):
            _only_names(value, f"{place}: {quoted(key)}")


def _only_names(value, named, depth=3):
    if isinstance(value, (dict, list)) and depth:
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            _only_names(part, named, depth - 1)
    elif isinstance(value, str):
        if not is_layer(value):
            raise InputError(f"{named} has {quoted(value)}: must be a name, for no expression is run; train again")
    elif not (value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value))):
        raise InputError(f"{named} has {quoted(value)}: must be a name or a number; train again")


def header_settings(text: str, file: Path) -> dict[str, dict[str, Any]]:
    """diffusers' lora_adapter_metadata, "unet.r" and the like, for each part of a pipeline by its name."""
    parts: dict[str, dict[str, Any]] = {}
    for key, value in parsed(text, f"{file}: lora_adapter_metadata in its header").items():
        part, dot, name = key.partition(".")
        if dot:
            parts.setdefault(part, {})[name] = value
    return parts

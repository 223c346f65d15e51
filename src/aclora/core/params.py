"""The one reader of params.yaml: strict about names, types and ranges.

Each section belongs to a frozen dataclass that stands beside the code it steers; the ranges are
checked there. Here a section becomes that dataclass, or an error that says what was meant.
"""

import dataclasses
import sys
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from aclora.core.errors import InputError, did_you_mean

FILE = Path("params.yaml")
METHODS = ("aclora", "lora", "trilora", "dora", "adalora", "loha", "lokr", "base")
SECTIONS = ("method", *METHODS, "styles", "data", "train", "checkpoints", "model", "captions", "audit", "generate")
SECTIONS += ("evaluate",)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class StyleConfig:
    """One entry under `styles`: where its pictures lie, its trigger words, what it is judged against."""

    pictures: str
    trigger: str
    reference: str

    def __post_init__(self):
        if not self.trigger.strip():
            raise InputError("trigger is empty: give words that call the style, 'zxq style' for instance")


def load(section: str, into: type[T], file: Path | None = None) -> T:
    """The section `section` ("train", "styles.watercolor") as the dataclass `into`.

    Raises `InputError` naming the knob, its value and its bound.
    """
    return build(into, _find(section, file), section, file or FILE)


def method(file: Path | None = None) -> str:
    """The name of the method that trains."""
    value = _find("method", file)
    if not isinstance(value, str):
        raise InputError(f"{file or FILE}: method = {value!r}: must be a method's name")
    return value


def value(knob: str, file: Path | None = None) -> object:
    """One knob ("train.epochs") as it stands in the file, its range unchecked."""
    return _find(knob, file)


def styles(file: Path | None = None) -> list[str]:
    """The names of all styles."""
    return list(_mapping(_find("styles", file), "styles", file or FILE))


def build(into: type[T], values: object, section: str, file: Path) -> T:
    """A dataclass from a mapping, every value checked against its field's type."""
    values = _mapping(values, section, file)
    fields = {f.name: f for f in dataclasses.fields(into)}
    for key in values:
        if key not in fields:
            raise InputError(f"{file}: {section}.{key} is unknown; {did_you_mean(key, fields)}")
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise InputError(f"{file}: {section}.{name} is missing")
    hints = typing.get_type_hints(into)
    kwargs = {k: _typed(v, hints[k], f"{file}: {section}.{k}") for k, v in values.items()}
    try:
        return into(**kwargs)
    except InputError as error:
        raise InputError(f"{file}: {section}.{error}") from None


def _find(section: str, file: Path | None) -> Any:
    sys.audit("aclora.core.params", section)  # lets a test compare what a stage reads with dvc.yaml
    file = file or FILE
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file} is missing: run from the project's folder") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8: save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    known, path = SECTIONS, ""
    for part in section.split("."):
        values = _mapping(values, path or "the file", file)
        for key in values:
            if not path and key not in known:
                raise InputError(f"{file}: {key} is unknown; {did_you_mean(key, known)}")
        if part not in values:
            raise InputError(f"{file}: {path}{part} is missing; {did_you_mean(part, values)}")
        values, path = values[part], f"{path}{part}."
    return values


def _mapping(values, section, file):
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{file}: {section} = {values!r}: must be a section of names and values")
    return values


def _typed(value, hint, where):
    if typing.get_origin(hint) is typing.Literal:
        options = typing.get_args(hint)
        if value is False and "no" in options:
            value = "no"  # YAML 1.1 takes a bare no for false, and `dvc exp run -S` writes it bare
        if value not in options or isinstance(value, bool) != any(isinstance(o, bool) for o in options):
            raise InputError(f"{where} = {value!r}: must be one of {', '.join(map(str, options))}")
        return value
    if typing.get_origin(hint) in (types.UnionType, typing.Union):  # the latter where a Literal is part of it
        if value is None and type(None) in typing.get_args(hint):
            return None
        hint, *words = (a for a in typing.get_args(hint) if a is not type(None))
        words = [w for word in words for w in typing.get_args(word)]
        if value in words:
            return value
        try:
            return _typed(value, hint, where)
        except InputError as error:
            raise InputError(" or ".join([str(error), *words])) from None
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where} = {value!r}: must be a list")
        return tuple(_typed(v, typing.get_args(hint)[0], where) for v in value)
    if hint is float:
        return _number(value, where)
    if type(value) is not hint:
        names = {int: "a whole number", str: "a text", bool: "true or false"}
        raise InputError(f"{where} = {value!r}: must be {names[hint]}")
    return value


def _number(value, where):
    # YAML 1.1, which PyYAML reads, takes 1e-4 for a text.
    try:
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return float(value)
    except ValueError:
        pass
    raise InputError(f"{where} = {value!r}: must be a number")

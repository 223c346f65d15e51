"""The one reader of params.yaml, which is the only place of every knob's value.

A section becomes the `Config` that stands beside the code that reads it, or an error says what was meant. Three names
at the top are fixed in form: `method` is a word, `styles` has an entry for each style, and a method's section has the
method's name. The section of a method from outside, `method: my_package.my_method`, is nested by the same dots, because
DVC looks it up so (`params: ["${method}"]` in dvc.yaml):

    method: my_package.my_method
    my_package:
      my_method:
        rank: 4

It may stand there while another method is chosen.
"""

import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, TypeVar

from pydantic import field_validator

from aclora.core import discovery, yaml_reader
from aclora.core.config import Config, MissingKnob
from aclora.core.errors import InputError, did_you_mean, require
from aclora.core.reading import read_text

FILE = Path("params.yaml")
MOST_BYTES = 10_000_000
SCHEMA = "params.schema.json"  # beside it, generated: python -m docs.generate
SECTIONS = ("styles", "data", "captions", "model", "method", "train", "checkpoints", "audit", "generate", "evaluate")
STYLE_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
T = TypeVar("T", bound=Config)


class StyleConfig(Config):
    """One entry under `styles`: the folder of its pictures, its trigger words, and what it is compared with."""

    pictures: str
    trigger: str
    reference: str

    @field_validator("trigger")
    @classmethod
    def _has_words(cls, trigger: str) -> str:
        bound = "words that call the style, 'zxq style' for instance"
        require(any(c.isalnum() for c in trigger), "trigger", trigger, bound)
        return trigger


def load(section: str, into: type[T], file: Path | None = None) -> T:
    """The section `section` ("train", "styles.watercolor") as the model `into`.

    Raises `InputError` that names the knob, its value and its bound.
    """
    return build(into, _find(section, file), section, file or FILE)


def method(file: Path | None = None) -> str:
    """The name of the method that trains."""
    value = _find("method", file)
    if not isinstance(value, str):
        raise InputError(f"{file or FILE}: method = {value!r}: must be a method's name")
    return value


def value(knob: str, file: Path | None = None) -> Any:
    """A knob ("train.epochs") or a section as it stands in the file, unchecked."""
    return _find(knob, file)


def styles(file: Path | None = None) -> list[str]:
    """The names of all styles. Raises `InputError` where there is none."""
    found = list(_mapping(_find("styles", file), "styles", file or FILE))
    if not found:
        raise InputError(f"{file or FILE}: styles is empty: give a style with its pictures, trigger and reference")
    return found


def chosen_styles(names: list[str] | None) -> list[str]:
    """The given styles without repetitions, for None or none all. Raises `InputError` for one that the file lacks."""
    known = styles()
    for name in names or ():
        if name not in known:
            raise InputError(f"style {name!r} is unknown; {did_you_mean(name, known)}")
    return list(dict.fromkeys(names or known))


def build(into: type[T], values: object, section: str, file: Path) -> T:
    """The model `into` of a mapping; its errors begin with the file and the section."""
    values = {str(key): value for key, value in _mapping(values, section, file).items()}
    try:
        return into(**values)
    except MissingKnob as error:
        question = _question(f"{section}.{error.knob}", file.with_name(SCHEMA))
        text = f"{error.knob} is missing: {question}" if question else str(error)
        raise InputError(f"{file}: {section}.{text}") from None
    except InputError as error:
        raise InputError(f"{file}: {section}.{error}") from None


def read(file: Path | None = None) -> dict[str, Any]:
    """The whole file, unchecked but for its names at the top. Raises `InputError`."""
    file = file or FILE
    if not os.path.lexists(file):
        raise InputError(f"{file} is missing: run from the project's folder")
    try:
        values = yaml_reader.parse(read_text(file, MOST_BYTES))
    except ValueError as error:
        raise InputError(f"{file} is not YAML as it is read here: {error}") from None
    values = _mapping(values, "the file", file)
    known = [*SECTIONS, *discovery.names("methods")]
    for key, value in values.items():
        if key not in known and not outside_sections(key, value):
            raise InputError(f"{file}: {key} is unknown; {did_you_mean(key, known)}")
    for style in _mapping(values.get("styles"), "styles", file):
        check_style_name(style, f"{file}: styles")
    return values


def check_style_name(name: str, place: str) -> None:
    """Raise `InputError` unless `name` can be part of paths, commands and DVC's names of stages."""
    if not re.fullmatch(STYLE_NAME, name):
        raise InputError(
            f"{place}: {name!r} cannot be a style's name: it must be 1 to 64 letters (a–z, A–Z), digits, _ or -, and "
            "begin with a letter or digit"
        )


def outside_sections(path: str, value: Any) -> dict[str, dict]:
    """The sections of methods from outside below a name, by their dotted paths; empty where it holds anything else."""
    if not isinstance(value, dict) or not value or not all(isinstance(inner, dict) for inner in value.values()):
        return {}
    found = {}
    for name, inner in value.items():
        found |= outside_sections(f"{path}.{name}", inner) or {f"{path}.{name}": inner}
    return found


def _find(section: str, file: Path | None) -> Any:
    sys.audit("aclora.params", section)  # lets a test compare what a stage reads with dvc.yaml
    file = file or FILE
    found: Any = read(file)
    path = ""
    for part in section.split("."):
        found = _mapping(found, path.rstrip(".") or "the file", file)
        if part not in found:
            raise InputError(f"{file}: {path}{part} is missing; {did_you_mean(part, found)}")
        found, path = found[part], f"{path}{part}."
    return found


def _mapping(values, section, file) -> dict:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{file}: {section} = {values!r}: must be a section of names and values")
    return values


def _question(knob: str, schema: Path) -> str | None:
    """What the schema beside params.yaml asks of a knob; None where there is no schema or it lacks the knob."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        node = json.loads(schema.read_text(encoding="utf-8"))
        for part in knob.split("."):
            node = node.get("properties", {}).get(part) or node["additionalProperties"]
        return node["description"]
    return None

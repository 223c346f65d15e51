"""Implementations found by folder: a file in a room is a method, a model family, a figure or an encoder.

A file names its class by a constant: METHOD, MODEL, ENCODER.
"""

import importlib
import importlib.util
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from aclora.core.errors import InputError, did_you_mean


def names(room: str, constant: str | None = None) -> list[str]:
    """The modules of a room ("methods"), sorted, with `constant` only those that define it. Imports none of them."""
    folder = _folder(room)
    found = sorted(module.name for module in pkgutil.iter_modules([str(folder)]) if module.name != "contract")
    return [name for name in found if constant is None or _defines(folder / f"{name}.py", constant)]


def find(room: str, name: str, knob: str, constant: str | None = None) -> str:
    """The full name of the module that `knob` names: a file of the room, or a module from outside by its dotted name.

    Does not import it. Raises `InputError` for a name that is neither, and for a file that does not define `constant`.
    """
    if "." in name:
        return find_outside(name, knob)
    # a stage reads the one file that a knob chooses, and depends on no other of the room
    if name not in names(room) or (constant and not _defines(_folder(room) / f"{name}.py", constant)):
        raise InputError(f"{knob} = {name!r} is unknown; {did_you_mean(name, names(room, constant))}")
    return f"aclora.{room}.{name}"


def find_outside(name: str, knob: str) -> str:
    """The name itself, if Python finds such a module, from the project's folder too; imports the packages around it.

    Raises `InputError` if there is none.
    """
    if (folder := str(Path.cwd())) not in sys.path:  # `python -m` puts it there, a console script does not
        sys.path.insert(0, folder)
    try:
        spec = None if name.startswith(".") else importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a package around it cannot import something else
        spec = None
    if spec is None:
        raise InputError(
            f"{knob} = {name!r}: there is no such module; name one that Python finds from the project's folder"
        )
    return name


def load(room: str, name: str, knob: str, constant: str) -> Any:
    """What `constant` stands for in the module that `find` finds. Raises `InputError` as `find` does."""
    module = importlib.import_module(find(room, name, knob, constant))
    if not hasattr(module, constant):
        raise InputError(f"{knob} = {name!r}: the module defines no {constant}; say there which class it is")
    return getattr(module, constant)


def outside(name: str, knob: str) -> ModuleType:
    """A module from outside this package, imported. Raises `InputError` if there is none."""
    return importlib.import_module(find_outside(name, knob))


def _folder(room):
    spec = importlib.util.find_spec(f"aclora.{room}")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"aclora.{room} is no folder of modules")
    return Path(spec.submodule_search_locations[0])


def _defines(file, constant):
    return re.search(rf"^{constant} = ", file.read_text(encoding="utf-8"), re.MULTILINE) is not None

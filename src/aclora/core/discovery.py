"""Implementations found by folder: a file in a room is a method, a model family, a figure or an encoder."""

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from aclora.core.errors import InputError, did_you_mean


def names(room: str) -> list[str]:
    """The modules of a room ("methods"), sorted. Imports neither the room nor its modules."""
    spec = importlib.util.find_spec(f"aclora.{room}")
    folders = spec.submodule_search_locations if spec else None
    return sorted(module.name for module in pkgutil.iter_modules(folders) if module.name != "contract")


def find(room: str, name: str, knob: str) -> str:
    """The full name of the module that `knob` names: a file of the room, or a module from outside by its dotted name.

    Does not import it. Raises `InputError` for a name that is neither.
    """
    if "." in name:
        return find_outside(name, knob)
    if name not in names(room):
        raise InputError(f"{knob} = {name!r} is unknown; {did_you_mean(name, names(room))}")
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


def load(room: str, name: str, knob: str) -> ModuleType:
    """The module that `find` finds, imported. Raises `InputError` as `find` does."""
    return importlib.import_module(find(room, name, knob))


def outside(name: str, knob: str) -> ModuleType:
    """A module from outside this package, imported. Raises `InputError` if there is none."""
    return importlib.import_module(find_outside(name, knob))

"""Implementations found by folder: a file in a room is a method, a model family, a figure or an encoder."""

import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from aclora.core.errors import InputError, did_you_mean


def names(room: str) -> list[str]:
    """The modules of a room ("methods"), sorted, without importing any of them."""
    package = importlib.import_module(f"aclora.{room}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name != "contract")


def load(room: str, name: str, knob: str) -> ModuleType:
    """The module that `knob` names: a file of the room, or a module of one's own by its dotted name.

    Raises `InputError` for a name that is neither.
    """
    if "." in name:
        return outside(name, knob)
    if name not in names(room):
        raise InputError(f"{knob} = {name!r} is unknown; {did_you_mean(name, names(room))}")
    return importlib.import_module(f"aclora.{room}.{name}")


def outside(name: str, knob: str) -> ModuleType:
    """A module from outside this package, that Python finds as it is or from the project's folder.

    Raises `InputError` where there is none.
    """
    if (here := str(Path.cwd())) not in sys.path:  # as `python -m` does; a console script does not
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there and lacks something itself
        raise InputError(
            f"{knob} = {name!r}: there is no such module; name one that Python finds from the project's folder"
        ) from None

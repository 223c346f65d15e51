"""Implementations found by folder: a file in a room is a method, a model family, a figure or an encoder."""

import importlib
import pkgutil
from types import ModuleType

from aclora.core.errors import InputError, did_you_mean


def names(room: str) -> list[str]:
    """The modules of a room ("methods"), sorted, without importing any of them."""
    package = importlib.import_module(f"aclora.{room}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name != "contract")


def load(room: str, name: str, knob: str) -> ModuleType:
    """The module that `knob` names: a file of the room, or any importable module by its dotted name.

    Raises `InputError` for a name that is neither.
    """
    if "." not in name and name not in names(room):
        raise InputError(f"{knob} = {name!r} is unknown; {did_you_mean(name, names(room))}")
    try:
        return importlib.import_module(name if "." in name else f"aclora.{room}.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        raise InputError(
            f"{knob} = {name!r}: there is no such module; name a file of aclora/{room} or your own"
        ) from None

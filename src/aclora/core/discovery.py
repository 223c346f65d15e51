"""Implementations found by folder: a file in a room is a method, a model family, a figure or an encoder.

A file names its class by a constant: METHOD, MODEL, ENCODER.
"""

import importlib
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType

from aclora.core.errors import InputError, did_you_mean


def names(room: str, constant: str | None = None) -> list[str]:
    """The modules of a room ("methods"), sorted, without importing any; with `constant` only those that define it."""
    (folder,) = importlib.import_module(f"aclora.{room}").__path__
    found = sorted(module.name for module in pkgutil.iter_modules([folder]) if module.name != "contract")
    return [name for name in found if constant is None or _defines(Path(folder) / f"{name}.py", constant)]


def load(room: str, name: str, knob: str, constant: str | None = None) -> ModuleType:
    """The module that `knob` names: a file of the room, or a module of one's own by its dotted name.

    Raises `InputError` for a name that is neither, and for a module that does not define `constant`.
    """
    if "." not in name and name not in names(room):
        raise InputError(f"{knob} = {name!r} is unknown; {did_you_mean(name, names(room, constant))}")
    module = outside(name, knob) if "." in name else importlib.import_module(f"aclora.{room}.{name}")
    if constant and not hasattr(module, constant):
        known = did_you_mean(name, names(room, constant))
        raise InputError(f"{knob} = {name!r}: {module.__name__} defines no {constant}; {known}")
    return module


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


def _defines(file, constant):
    return re.search(rf"^{constant} = ", file.read_text(encoding="utf-8"), re.MULTILINE) is not None

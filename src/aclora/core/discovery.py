"""Implementations found by folder: a file in a room is a method, a model family, a figure or an encoder.

A file names its class by a constant: METHOD, MODEL, ENCODER.
"""

import contextlib
import importlib
import importlib.util
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from aclora.core.errors import InputError, did_you_mean, printable

T = TypeVar("T")


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

    Raises `InputError` if there is none, and where a package around it cannot be imported.
    """
    if (folder := str(Path.cwd())) not in sys.path:  # `python -m` puts it there, a console script does not
        sys.path.insert(0, folder)
    spec = None
    with contextlib.suppress(ModuleNotFoundError), _importing(name, knob):
        spec = None if name.startswith(".") else importlib.util.find_spec(name)
    if spec is None:
        raise InputError(
            f"{knob} = {name!r}: there is no such module; name one that Python finds from the project's folder"
        )
    return name


def load(room: str, name: str, knob: str, constant: str, kind: type[T] | None = None) -> Any:
    """The class that `constant` stands for in the module that `find` finds.

    Raises `InputError` as `find` does, for a module that cannot be imported, and where the constant is no class that
    inherits from `kind`.
    """
    module = outside(name, knob) if "." in name else importlib.import_module(find(room, name, knob, constant))
    if not hasattr(module, constant):
        raise InputError(f"{knob} = {name!r}: the module defines no {constant}; say there which class it is")
    found = getattr(module, constant)
    if not isinstance(found, type) or (kind and not issubclass(found, kind)):
        bound = f"a class that inherits from {kind.__module__}.{kind.__qualname__}" if kind else "a class"
        raise InputError(f"{knob} = {name!r}: {constant} = {printable(repr(found)[:100])} there, must be {bound}")
    return found


def outside(name: str, knob: str) -> ModuleType:
    """A module from outside this package, imported.

    Raises `InputError` if there is none, and for one that cannot be imported: it says why, and in which line.
    """
    find_outside(name, knob)
    with _importing(name, knob):
        return importlib.import_module(name)


@contextlib.contextmanager
def _importing(name, knob) -> Iterator[None]:
    """Whatever a user's own module does when it is imported becomes one line, an `InputError`.

    But for a `ModuleNotFoundError` of the module itself, or of a package around it.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            raise
        own = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own[1:] else ""
        what = printable(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
        raise InputError(f"{knob} = {name!r}: the module cannot be imported: {what}{where}") from None


def _folder(room):
    spec = importlib.util.find_spec(f"aclora.{room}")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"aclora.{room} is no folder of modules")
    return Path(spec.submodule_search_locations[0])


def _defines(file, constant):
    return re.search(rf"^{constant} = ", file.read_text(encoding="utf-8"), re.MULTILINE) is not None

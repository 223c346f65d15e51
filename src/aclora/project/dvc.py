"""DVC: its view of a project, and its commands as child processes."""

import contextlib
import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from aclora.core.errors import InputError
from aclora.core.failures import one_line
from aclora.core.files import read_json, write_atomically
from aclora.project import process

CHECKS = ("check", "check-style")  # the stages that look at the inputs and change no result
CHECKED = "checked\n"  # what they write, always: whatever changes, the stages after them depend on nothing new
# How DVC says that a file did not reach its cache: a line, after which it goes on, with exit status 0 if that was all.
NOT_CACHED = "ERROR: failed to transfer "
FULL = tuple(f"[Errno {number}]" for number in (errno.ENOSPC, errno.EDQUOT))


@contextlib.contextmanager
def opened(root: Path = Path(".")) -> Iterator:
    """DVC's `Repo` of a project as it is now. Raises `InputError` outside of one, and where DVC or a file fails."""
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(str(root), _wait_for_lock=True) as repo:
            yield repo
    except NotDvcRepoError:
        raise InputError(f"{root.resolve()} is not a DVC project: run from the project's folder") from None
    except DvcException as error:
        text = " ".join(str(error).split())
        if re.search(r"dvc\.lock'.*(invalid|validation failed|corrupted)", text):
            text += "; if a killed dvc left half of it: `git checkout dvc.lock`, or delete it, and run again"
        raise InputError(f"DVC: {text}") from None
    except OSError as error:
        raise InputError(f"DVC: {one_line(error)}") from None


def marks(repo) -> list[str]:
    """The files, by their absolute paths, in which the stages that only look write `CHECKED`."""
    looking = [s for s in repo.index.stages if s.cmd and is_check(getattr(s, "name", ""))]
    return [str(out.fs_path) for stage in looking for out in stage.outs]


def mark_checked(root: Path) -> None:
    """Write what the stages that only look would write, without looking."""
    with opened(root) as repo:
        for mark in map(Path, marks(repo)):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(CHECKED, encoding="utf-8")


def stages(repo) -> dict[str, Any]:
    """The stages of the project's own dvc.yaml, without those that only look, by their names.

    `addressing` is no name: it depends on the current folder.
    """
    own = Path(repo.root_dir) / "dvc.yaml"
    return {s.name: s for s in repo.index.stages if s.cmd and Path(s.path) == own and not is_check(s.name)}


def status(names: list[str], root: Path = Path(".")) -> dict[str, list] | None:
    """The stages of `root` among `names` that are out of date, and what changed, as `dvc status --json` says.

    None while another process is at work on one of them.
    """
    from dvc.lock import LockError

    with opened(root) as repo:
        try:
            found = repo.status(targets=names) if names else {}
        except LockError:
            return None
    return {name: changes for name, changes in found.items() if name in names}


def is_check(name: str) -> bool:
    """Whether a stage, by its name, only looks at the inputs: it is no part of what a run is."""
    return name.partition("@")[0] in CHECKS


def holds_params(dep) -> bool:
    """Whether a stage's dependency is its parameters, and not a file or folder."""
    return dep.hash_name == "params"


def run(
    *args: str,
    log: Callable[[str], None] | None,
    tick: Callable[[], None] | None = None,
    folder: Path = Path("."),
    env: Mapping[str, str | None] | None = None,
    echo: Callable[[bytes], None] | None = None,
) -> tuple[int, list[str]]:
    """Run dvc by `process.run`, which says what `log`, `tick`, `env` and `echo` do; exit status and lines of output.

    It waits for the project's lock. If a killed dvc left half of its lock file, that is removed and dvc runs again.
    Where a file did not reach the cache the status is not 0, whatever dvc says; where a disk is full, a last line says
    what to free. Both need a `log`.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *args]
    status, lines = process.run(command, log, tick, folder, env, echo)
    if log and status and any("RWLock-file" in line for line in lines):
        mend_lock(log, folder)
        status, lines = process.run(command, log, tick, folder, env, echo)
    if log and (lost := [line for line in lines if line.startswith(NOT_CACHED)]):
        status = status or 1
        lines.append(f"error: not in DVC's cache: {lost[0].removeprefix(NOT_CACHED)}")
    if log and status and any(line.startswith("ERROR") and any(e in line for e in FULL) for line in lines):
        lines.append(f"error: {full(folder)}")
    return status, lines


def full(folder: Path = Path(".")) -> str:
    """What to say, and what to free, where DVC found a disk full."""
    with opened(folder) as repo:
        cache = os.path.relpath(repo.cache.local_cache_dir, folder.resolve())
    return (
        f"no space left on the disk of {cache}: free some (old trainings in .cache/training, .cache/features, "
        "`dvc gc --all-commits`), then run again"
    )


def mend_lock(log: Callable[[str], None], folder: Path = Path(".")) -> None:
    """Remove DVC's table of locks where a killed dvc left half of it, and from a whole one the locks of dead processes.

    No other dvc would start, and one would wait for ever where the system has given a dead dvc's id to another process.
    """
    file = folder / ".dvc/tmp/rwlock"
    if not _stale(file):
        return
    from dvc.lock import make_lock

    with make_lock(f"{file}.lock", tmp_dir=str(file.parent)):  # nobody is writing it
        if _stale(file):  # still
            whole = _table(file) is not None
            file.unlink() if not whole else write_atomically(file, json.dumps(_living(file)).encode())
            what = "the locks of processes that are gone from it" if whole else "it: a killed dvc left half of it"
            log(f"{file}: removed {what}")


def _stale(file):
    """Whether half a table stands there, or one with the lock of a process that is gone."""
    if not file.exists():
        return False
    table = _table(file)
    return table is None or _count(_living(file)) < _count(table)


def _living(file):
    """The table without the locks of processes that are gone; nothing where there is no whole table."""
    if (table := _table(file)) is None:
        return {}
    written = file.stat().st_mtime
    read = {path: [lock for lock in locks if _holds(lock, written)] for path, locks in table.get("read", {}).items()}
    write = {path: lock for path, lock in table.get("write", {}).items() if _holds(lock, written)}
    return {"write": write, "read": {path: locks for path, locks in read.items() if locks}}


def _count(table):
    return len(table.get("write", {})) + sum(map(len, table.get("read", {}).values()))


def _holds(lock, written):
    """Whether the process that took a lock lives: one with its id that is older than the table and may be a dvc."""
    try:
        holder = psutil.Process(lock["pid"])
        command = " ".join(holder.cmdline())
        return holder.create_time() <= written + 1 and ("python" in command or "dvc" in command)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _table(file):
    """DVC's table of locks if the file holds a whole one, else None."""
    try:
        table = read_json(file)
    except ValueError:
        return None
    if not isinstance(table, dict) or table.keys() - {"read", "write"}:
        return None
    read, write = table.get("read", {}), table.get("write", {})
    if not isinstance(read, dict) or not isinstance(write, dict):
        return None
    lists = all(isinstance(value, list) for value in read.values())
    whole = lists and all(map(_is_lock, [*write.values(), *(lock for value in read.values() for lock in value)]))
    return table if whole else None


def _is_lock(lock):
    return isinstance(lock, dict) and isinstance(lock.get("pid"), int) and isinstance(lock.get("cmd"), str)

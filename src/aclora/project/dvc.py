"""DVC: its view of a project, and its commands as child processes."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from aclora.core.errors import InputError
from aclora.core.files import read_json
from aclora.project import process

# How DVC says that a file did not reach its cache: a line, after which it goes on, with exit status 0 if that was all.
NOT_CACHED = "ERROR: failed to transfer "
FULL = tuple(f"[Errno {number}]" for number in (errno.ENOSPC, errno.EDQUOT))


@contextlib.contextmanager
def opened(root: Path = Path(".")) -> Iterator:
    """DVC's `Repo` of a project as it is now. Raises `InputError` outside of one, and where DVC fails inside."""
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(str(root), _wait_for_lock=True) as repo:
            yield repo
    except NotDvcRepoError:
        raise InputError(f"{root.resolve()} is not a DVC project: run from the project's folder") from None
    except DvcException as error:
        text = " ".join(str(error).split())
        if "dvc.lock' is invalid" in text or "dvc.lock' validation failed" in text:
            text += "; if a killed dvc left half of it: `git checkout dvc.lock`, or delete it, and run again"
        raise InputError(f"DVC: {text}") from None


def status(names: list[str]) -> dict[str, list] | None:
    """The current folder's stages among `names` that are out of date, and what changed, as `dvc status --json` says.

    None while another process is at work on one of them.
    """
    from dvc.lock import LockError

    with opened() as repo:
        try:
            found = repo.status(targets=names) if names else {}
        except LockError:
            return None
    return {name: changes for name, changes in found.items() if name in names}


def holds_params(dep) -> bool:
    """Whether a stage's dependency is its parameters, and not a file or folder."""
    return dep.hash_name == "params"


def run(
    *args: str,
    log: Callable[[str], None] | None,
    tick: Callable[[], None] | None = None,
    folder: Path = Path("."),
    env: dict[str, str] | None = None,
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
        cache = os.path.relpath(repo.cache.local.path, folder.resolve())
    return (
        f"no space left on the disk of {cache}: free some (old trainings in .cache/training, .cache/features, "
        "`dvc gc --all-commits`), then run again"
    )


def mend_lock(log: Callable[[str], None], folder: Path = Path(".")) -> None:
    """Remove DVC's table of locks where a killed dvc left half of it: no other dvc would start."""
    table = folder / ".dvc/tmp/rwlock"
    if _is_table(table):
        return
    from dvc.lock import make_lock

    with make_lock(f"{table}.lock", tmp_dir=str(table.parent)):  # nobody is writing it
        if not _is_table(table):
            table.unlink()
            log(f"removed {table}: a dvc that was killed left half of it")


def _is_table(file):
    """Whether a file holds a table of locks as DVC reads it, or does not exist."""
    try:
        table = read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except ValueError:
        return False
    if not isinstance(table, dict) or table.keys() - {"read", "write"}:
        return False
    read, write = table.get("read", {}), table.get("write", {})
    if not isinstance(read, dict) or not isinstance(write, dict):
        return False
    lists = all(isinstance(value, list) for value in read.values())
    return lists and all(map(_is_lock, [*write.values(), *(lock for value in read.values() for lock in value)]))


def _is_lock(lock):
    return isinstance(lock, dict) and isinstance(lock.get("pid"), int) and isinstance(lock.get("cmd"), str)

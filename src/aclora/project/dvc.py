"""DVC: its view of a project, and its commands as child processes."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aclora.core.errors import InputError
from aclora.core.files import read_json
from aclora.project import process


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
        raise InputError(f"DVC: {' '.join(str(error).split())}") from None


def stages(repo) -> dict[str, Any]:
    """The stages of the project's own dvc.yaml by their names; `addressing` depends on the current folder instead."""
    own = Path(repo.root_dir) / "dvc.yaml"
    return {s.name: s for s in repo.index.stages if s.cmd and Path(s.path) == own}


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


def holds_params(dep) -> bool:
    """Whether a stage's dependency is its parameters, and not a file or folder."""
    return dep.hash_name == "params"


def run(
    *args: str,
    log: Callable[[str], None] | None,
    tick: Callable[[], None] | None = None,
    folder: Path = Path("."),
    env: dict[str, str] | None = None,
) -> tuple[int, list[str]]:
    """Run dvc by `process.run`, which says what `log`, `tick` and `env` do; exit status and lines of output.

    It waits for the project's lock. If a killed dvc left half of its lock file, that is removed and dvc runs again.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *args]
    result = process.run(command, log, tick, folder, env)
    if log and result[0] and any("RWLock-file" in line and "corrupted" in line for line in result[1]):
        mend_lock(log, folder)
        result = process.run(command, log, tick, folder, env)
    return result


def mend_lock(log: Callable[[str], None], folder: Path = Path(".")) -> None:
    """Remove DVC's table of locks where a killed dvc left half of it: no other dvc would start."""
    from dvc.lock import make_lock

    table = folder / ".dvc/tmp/rwlock"
    if not table.exists():
        return
    with make_lock(f"{table}.lock", tmp_dir=str(table.parent)):  # nobody is writing it
        try:
            read_json(table)
        except FileNotFoundError:  # another run removed it first
            return
        except ValueError:
            table.unlink()
            log(f"removed {table}: a dvc that was killed left half of it")

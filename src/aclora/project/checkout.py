"""A commit's files beside the user's own: a work tree of git's, with the data of this clone's DVC cache."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from aclora.core.errors import InputError
from aclora.project import dvc, git, process


@contextlib.contextmanager
def work_tree(here: Path, commit: str, top: Path, keep: bool = False) -> Iterator[Path]:
    """The project in the folder `here` as it was at a commit, checked out at `top`, a new or empty folder.

    Yields the project's folder in it, which knows this clone's DVC remotes and cache. Unless `keep`, it is removed.
    """
    prefix = git.run("rev-parse", "--show-prefix", folder=here).strip()
    git.run("worktree", "add", "--quiet", "--detach", str(top), commit, folder=here, config=git.NO_HOOKS)
    try:
        tree = top / prefix
        _share_data(here, tree)
        yield tree
    finally:
        if not keep:
            git.run("worktree", "remove", "--force", str(top), folder=here)


def _share_data(here, tree):
    """Give the work tree this clone's DVC remotes and cache: the commit's may be old, and nothing is fetched twice."""
    with dvc.opened(here) as mine, dvc.opened(tree) as other, other.config.edit("local") as settings:
        settings |= {"remote": mine.config["remote"], "cache": {"dir": mine.cache.local_cache_dir}}
        if default := mine.config["core"].get("remote"):
            settings["core"] = {"remote": default}


def fetch(here: Path, tree: Path, deps: Iterable[str], outs: Iterable[str] = ()) -> None:
    """Get what git does not have from DVC's cache, else from its remote, else a dependency from the user's files.

    The user's may have changed since: whoever needs to know compares them with dvc.lock. Raises `InputError` for what
    is nowhere.
    """
    wanted = list(dict.fromkeys([*deps, *outs]))

    def missing():
        return [path for path in wanted if not (tree / path).exists()]

    if missing():
        dvc.run("checkout", "--", *missing(), log=lambda line: None, folder=tree)
    if not (left := missing()):
        return
    with dvc.opened(tree) as repo:
        has_remote = bool(repo.config["remote"])
    status, lines = (
        dvc.run("pull", "--", *left, log=lambda line: None, folder=tree)
        if has_remote
        else (1, ["there is no DVC remote to fetch it from: `dvc remote add`"])
    )
    for path in missing():
        if path not in deps or not (here / path).exists():
            why = process.reason(lines) if status else "the remote does not have it"
            raise InputError(f"{path} is neither in git nor in DVC's cache, and cannot be fetched: {why}")
        _copy(here / path, tree / path)


def _copy(source, target):
    """A file or folder beside the user's own, without a second copy of its bytes where the disk is the same."""

    def link(one, other):
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=link)
    else:
        link(source, target)

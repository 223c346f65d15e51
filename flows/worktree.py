"""The clone's work tree: whether it is clean, which commit it is at, what is fetched, committed and pushed."""

import contextlib
import fcntl
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from aclora.core.errors import InputError
from aclora.project import git

LOCK = "dvc.lock"


def refuse_dirty(outs: Iterable[str], flow: str) -> None:
    """Raise `InputError` if anything but dvc.lock and DVC's `outs` differs from the last commit."""
    status = git.run("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames").split("\0")
    paths = [entry[3:] for entry in status if entry]
    dirty = [p for p in paths if p != LOCK and not any(p == out or p.startswith(f"{out}/") for out in outs)]
    if dirty:
        more = f" and {len(dirty) - 5} more" if len(dirty) > 5 else ""
        raise InputError(
            f"the work tree is dirty: {', '.join(dirty[:5])}{more}; {flow} starts from a commit: commit or stash them"
        )


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Keep every other run that changes the clone's commit out of it. Raises `InputError` if one is inside."""
    with open(git.run("rev-parse", "--git-path", "aclora.lock").strip(), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                "another run of the team is at work in this clone: every worker needs a clone of its own and --limit 1"
            ) from None
        yield


def pushed_commit() -> str:
    """The current commit. Raises `InputError` if no remote has it: other clones could not get it."""
    commit = git.run("rev-parse", "HEAD").strip()
    if not git.run("branch", "--remotes", "--contains", commit).strip():
        raise InputError(f"commit {commit[:7]} is in no branch of a git remote, workers cannot get it: git push first")
    return commit


def check_out(commit: str) -> None:
    """Fetch, and go to the commit; dvc.lock and those of DVC's outs that git keeps become what they are there.

    Raises `InputError` for a commit that no remote has.
    """
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):  # a run's parameter, which anyone with the password may set
        raise InputError(f"commit = {commit!r}: must be a commit's digest")
    git.run("fetch", "--quiet", "--all")
    git.run("checkout", "--quiet", "--force", "--detach", commit)
    if not git.run("ls-files", LOCK):
        Path(LOCK).unlink(missing_ok=True)  # of another commit; the run-cache knows what it says


def _has_upstream() -> bool:
    try:
        git.run("rev-parse", "--verify", "--quiet", "@{upstream}")
    except InputError:
        return False
    return True


def push() -> bool:
    """Send the branch to its upstream, if it has one. Raises `InputError` if that has moved on or refuses."""
    if not _has_upstream():
        return False
    branch = git.run("branch", "--show-current").strip()
    git.run("push", "--quiet", git.run("config", f"branch.{branch}.remote").strip())
    return True


def pull() -> str | None:
    """Fast-forward to the upstream branch; the commit that it is at, or None without an upstream."""
    if not _has_upstream():
        return None
    return git.run("pull", "--ff-only", "--quiet") or git.run("log", "-1", "--format=%h %s").strip()


def commit(outs: Iterable[str], message: str) -> str | None:
    """Commit dvc.lock and those of DVC's outs that git keeps; the commit, or None if nothing changed."""
    files = set(git.run("ls-files", "-co", "--exclude-standard", "-z", "--", LOCK, *outs).split("\0")) - {""}
    if not files or not git.run("status", "--porcelain", "--", *files).strip():
        return None
    git.run("add", "--", *files)
    git.run("commit", "--quiet", "-m", message, "--", *files, config=_author())
    return git.run("rev-parse", "--short", "HEAD").strip()


def _author():
    """git's settings for an author if the clone has none."""
    try:
        git.run("config", "user.email")
    except InputError:
        return {"user.name": "aclora retrain", "user.email": "retrain@localhost"}
    return {}

"""The clone's git: what is dirty, what is fetched, what is committed."""

import contextlib
import fcntl
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from aclora.core.errors import InputError

LOCK = "dvc.lock"


def git(*args: str) -> str:
    """git's output. Raises `InputError` with what it says."""
    done = subprocess.run(["git", *args], capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise InputError(f"git {args[0]}: {said[-1] if said else 'failed'}")
    return done.stdout


def refuse_dirty(made: Iterable[str], what: str) -> None:
    """Raises `InputError` where anything but dvc.lock and what DVC makes (`made`) differs from the last commit."""
    status = git("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames").split("\0")
    paths = [entry[3:] for entry in status if entry]
    dirty = [p for p in paths if p != LOCK and not any(p == out or p.startswith(f"{out}/") for out in made)]
    if dirty:
        more = f" and {len(dirty) - 5} more" if len(dirty) > 5 else ""
        raise InputError(
            f"the work tree is dirty: {', '.join(dirty[:5])}{more}; {what} starts from a commit: commit or stash them"
        )


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep every other run that wants the clone for itself out of it. Raises `InputError` where one is at work."""
    with open(git("rev-parse", "--git-path", "aclora.lock").strip(), "w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                "another run of the team is at work in this clone: every worker needs a clone of its own and --limit 1"
            ) from None
        yield


def shared() -> str:
    """The current commit. Raises `InputError` where no remote has it: other clones could not get it."""
    commit = git("rev-parse", "HEAD").strip()
    if not git("branch", "--remotes", "--contains", commit).strip():
        raise InputError(f"commit {commit[:7]} is in no branch of a git remote, workers cannot get it: git push first")
    return commit


def check_out(commit: str) -> None:
    """Fetch, and go to the commit; dvc.lock and what git keeps of DVC's outs become what they are there.

    Raises `InputError` for a commit that no remote has.
    """
    git("fetch", "--quiet", "--all")
    git("checkout", "--quiet", "--force", "--detach", commit)
    if not git("ls-files", LOCK):
        Path(LOCK).unlink(missing_ok=True)  # of another commit; what it says is in the run-cache too


def push() -> bool:
    """Send the branch to its upstream, if it has one. Raises `InputError` where that has moved on or refuses."""
    found = subprocess.run(["git", "rev-parse", "--verify", "--quiet", "@{upstream}"], capture_output=True)
    if found.returncode:
        return False
    git("push", "--quiet", git("config", f"branch.{git('branch', '--show-current').strip()}.remote").strip())
    return True


def pull() -> str | None:
    """Fast-forward to the upstream branch; what came, or None where there is no upstream."""
    upstream = subprocess.run(["git", "rev-parse", "--verify", "--quiet", "@{upstream}"], capture_output=True)
    if upstream.returncode:
        return None
    return git("pull", "--ff-only", "--quiet") or git("log", "-1", "--format=%h %s").strip()


def commit(made: Iterable[str], message: str) -> str | None:
    """Commit dvc.lock and those of DVC's outs that git keeps; the commit, or None where nothing changed."""
    ours = set(git("ls-files", "-co", "--exclude-standard", "-z", "--", LOCK, *made).split("\0")) - {""}
    if not ours or not git("status", "--porcelain", "--", *ours).strip():
        return None
    git("add", "--", *ours)
    known = subprocess.run(["git", "config", "user.email"], capture_output=True).returncode == 0
    who = [] if known else ["-c", "user.name=aclora retrain", "-c", "user.email=retrain@localhost"]
    git(*who, "commit", "--quiet", "-m", message, "--", *ours)
    return git("rev-parse", "--short", "HEAD").strip()

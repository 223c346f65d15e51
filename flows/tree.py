"""The clone's git: what is dirty, what is fetched, what is committed."""

import subprocess
from collections.abc import Iterable

from aclora.errors import InputError

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

"""git, as a child process."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aclora.core.errors import InputError
from aclora.project import process

HERE = Path(".")
NO_HOOKS = {"core.hooksPath": os.devnull}  # a setting: the user's hooks do not run
EXPERIMENT = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(.+)")  # DVC keeps other things below refs/exps too
Texts = Mapping[str, str]


def run(
    *args: str, folder: Path = HERE, env: Texts | None = None, config: Texts | None = None, stdin: bytes = b""
) -> str:
    """What a git command in `folder` prints. Raises `InputError` with git's reason if it fails.

    `env` is added to the environment, `config` to git's settings.
    """
    return run_bytes(*args, folder=folder, env=env, config=config, stdin=stdin).decode("utf-8")


def run_bytes(
    *args: str, folder: Path = HERE, env: Texts | None = None, config: Texts | None = None, stdin: bytes = b""
) -> bytes:
    """`run` for output that need not be text, such as a patch."""
    if not shutil.which("git"):
        raise InputError("git is missing: install it")
    # a file's line ends are its author's affair: no warning, and no refusal to add it
    settings = {"core.safecrlf": "false"} | dict(config or {})
    command = ["git", *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")), *args]
    done = subprocess.run(command, cwd=folder, env=os.environ | (env or {}), input=stdin, capture_output=True)
    if done.returncode:
        output = (done.stderr or done.stdout).decode("utf-8", "replace")
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        raise InputError(f"git {args[0]}: {process.reason(lines)}")
    return done.stdout


def commit_of(name: str) -> str | None:
    """The commit that a name means to git; None where it means none. What begins with a dash is an option, no name."""
    if name.startswith("-"):
        return None
    try:
        return run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
    except InputError:
        return None


@dataclass(frozen=True)
class Experiment:
    """An experiment of DVC's: its name, its commit, and the commit that it changes."""

    name: str
    commit: str
    baseline: str


def all_experiments() -> list[Experiment]:
    """The experiments of all commits, as DVC keeps them in git's refs."""
    lines = run("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    found = [(commit, EXPERIMENT.fullmatch(ref)) for commit, ref in (line.split(" ", 1) for line in lines)]
    return [Experiment(ref[3], commit, ref[1] + ref[2]) for commit, ref in found if ref]


def experiments(of: str = "") -> dict[str, str]:
    """The commits of DVC's experiments by their names: all of them, or those `of` one commit (40 hex digits)."""
    return {found.name: found.commit for found in all_experiments() if of in ("", found.baseline)}

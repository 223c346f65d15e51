"""git, as a child process."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from aclora.core.errors import InputError
from aclora.project import process

HERE = Path(".")
NO_HOOKS = {"core.hooksPath": os.devnull}  # a setting: the user's hooks do not run
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


def experiments(of: str = "") -> dict[str, str]:
    """The commits of DVC's experiments by their names: all of them, or those `of` one commit (40 hex digits)."""
    refs = f"refs/exps/{of[:2]}/{of[2:]}" if of else "refs/exps"
    lines = run("for-each-ref", "--format=%(objectname) %(refname)", refs).splitlines()
    return {ref.rsplit("/", 1)[1]: commit for commit, ref in (line.split(" ", 1) for line in lines)}

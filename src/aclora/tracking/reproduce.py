"""A run of MLflow's trained again in a work tree of its own, from the commit, patch and data that it recorded."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aclora.core.errors import InputError
from aclora.project import fingerprint, records
from aclora.tracking import store

STAGES = ("caption", "train-aclora")


def reproduce(name: str, into: Path | None = None) -> bool:
    """Train the run that `name` means (`tracking.find`) again and say whether its adapter is the recorded one.

    Its work tree is a temporary folder, or `into`, which is kept. Raises `InputError` where the run, its commit, its
    data or its parameters cannot be had, and where a stage fails.
    """
    run = store.find(name)
    here = Path.cwd()
    print(f"{run.style}, run {run.run_id}: commit {run.commit}{' with uncommitted changes' if run.patch else ''}")
    with _work_tree(here, run, into) as tree:
        if _text(here, "requirements.lock") != _text(tree, "requirements.lock"):
            print("note: its requirements.lock is not this environment's")
        _share_data(here, tree)
        names = {stage: f"{stage}@{run.style}" for stage in STAGES}
        asked = {n: run.stages[n] for n in names.values()}
        for stage, full in names.items():
            _fetch(tree, asked[full])
            if differs := records.differences(tree, {full: asked[full]}):
                raise InputError(f"{full} would not be run as recorded: {'; '.join(differs[:3])}")
            # without the run-cache, which would only hand back what was made before, and leaving it as it is
            _dvc(tree, "repro", "--quiet", "--single-item", "--force", "--no-commit", full, why=f"{stage} failed")
        return _verdict(run, tree)


def _verdict(run, tree):
    adapter = records.adapter(run.style, tree)
    digest = fingerprint.digest(adapter)
    if digest == run.digest:
        print(f"identical: the adapter's digest is {digest}")
        return True
    print(f"not identical: the adapter's digest is {digest}, recorded {run.digest}; another kind of processor, other")
    print("numbers of threads or other package versions give other last bits")
    return False


@contextlib.contextmanager
def _work_tree(here: Path, run: store.Published, into: Path | None) -> Iterator[Path]:
    """The project as it was, checked out beside the user's own work tree."""
    if not run.commit:
        raise InputError(f"run {run.run_id} was published outside of git: there is no commit to go back to")
    if into and into.exists() and any(into.iterdir()):
        raise InputError(f"--into = {str(into)!r}: must be a new or an empty folder")
    try:
        records.git(here, "cat-file", "-e", f"{run.commit}^{{commit}}")
    except InputError:
        raise InputError(
            f"commit {run.commit} of run {run.run_id} is not in this repository: `git fetch` it, or push it from where "
            "the run was published"
        ) from None
    prefix = records.git(here, "rev-parse", "--show-prefix").decode().strip()
    with tempfile.TemporaryDirectory(prefix="aclora-") as scratch:
        top = into.resolve() if into else Path(scratch) / "tree"
        records.git(here, "worktree", "add", "--quiet", "--detach", str(top), run.commit)
        try:
            if run.patch:
                records.git(top, "apply", "--whitespace=nowarn", "-", stdin=run.patch)
            yield top / prefix
        finally:
            if not into:
                records.git(here, "worktree", "remove", "--force", str(top))


def _share_data(here, tree):
    """This clone's DVC remotes and cache for the work tree: those of the commit may be old, and nothing is fetched
    twice."""
    from dvc.repo import Repo

    with Repo(str(here)) as mine, Repo(str(tree)) as other, other.config.edit("local") as settings:
        settings |= {"remote": mine.config["remote"], "cache": {"dir": mine.cache.local.path}}
        if default := mine.config["core"].get("remote"):
            settings["core"] = {"remote": default}


def _fetch(tree, stage):
    """What the stage reads and git does not have, from DVC."""
    missing = [dep for dep in stage["deps"] if not (tree / dep).exists()]
    if not missing:
        return
    with contextlib.suppress(InputError):
        _dvc(tree, "checkout", *missing)
    missing = [dep for dep in missing if not (tree / dep).exists()]
    if missing and not subprocess.run(["dvc", "remote", "list"], cwd=tree, capture_output=True).stdout.strip():
        raise InputError(f"{missing[0]} is not in git, and there is no DVC remote to fetch it from: `dvc remote add`")
    if missing:
        _dvc(tree, "pull", *missing, why=f"{missing[0]} cannot be fetched")


def _dvc(tree, *args, why="dvc"):
    """Run DVC in the work tree with its code; its output passes through where a stage runs."""
    code = os.pathsep.join([str(tree / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PYTHONPATH": code, "PATH": path, "ACLORA_TRACKING": "off"}
    told = None if args[0] == "repro" else subprocess.PIPE
    done = subprocess.run(["dvc", *args], cwd=tree, env=env, stdout=told, stderr=told, text=True)
    if done.returncode:
        raise InputError(f"{why}: {records.complaint(done.stderr) if told else 'see above'}")


def _text(folder, file):
    return (folder / file).read_bytes() if (folder / file).exists() else b""

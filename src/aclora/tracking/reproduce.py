"""A run of MLflow's, trained again in a work tree of its own from the commit, patch and data that it recorded."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aclora.core.errors import InputError
from aclora.core.files import digest, read_json
from aclora.project import checkout, dvc, git, records, workspace
from aclora.tracking import store

STAGES = ("caption", "train-aclora")


@dataclass(frozen=True)
class Published:
    """What a published run recorded of its inputs; `commit` is None without git, `patch` if nothing differed."""

    run_id: str
    style: str
    commit: str | None
    patch: bytes | None
    digest: str
    stages: dict[str, dict]


def reproduce(name: str, into: Path | None = None) -> bool:
    """Train the run called `name` (see `find`) again and return whether its adapter is the recorded one.

    Its work tree is a temporary folder, or `into`, which is kept. Raises `InputError` if the run, its commit, its
    data or its parameters are not available, and if a stage fails.
    """
    run = find(name)
    here = Path.cwd()
    print(f"{run.style}, run {run.run_id}: commit {run.commit}{' with uncommitted changes' if run.patch else ''}")
    with _work_tree(here, run, into) as tree:
        if _content(here / "requirements.lock") != _content(tree / "requirements.lock"):
            print("note: this environment's requirements.lock is not the run's")
        dvc.mark_checked(tree)  # it was, when it ran
        for stage in STAGES:
            full = f"{stage}@{run.style}"
            recorded = {full: run.stages[full]}
            checkout.fetch(here, tree, recorded[full]["deps"])
            if differences := workspace.differences(tree, recorded):
                raise InputError(f"{full} would not run as recorded: {'; '.join(differences[:3])}")
            # without the run-cache, which would only return the earlier result, and leaving it as it is
            _repro(tree, full)
        return _compare(run, tree)


def find(name: str) -> Published:
    """The published run that `name` means: a run's id, `style@alias`, or the first digits of a fingerprint.

    Raises `InputError` if there is none, several, or one whose files were never published.
    """
    with store.connected(create=False) as client, tempfile.TemporaryDirectory() as scratch:
        run = _named(client, name)
        run_id, tags = run.info.run_id, run.data.tags
        if store.ADAPTER not in tags:
            style = tags.get(store.STYLE)
            raise InputError(f"run {name!r} was never published completely: `aclora publish {style}` does that")
        stages = read_json(Path(client.download_artifacts(run_id, "dvc/lock.json", scratch)))
        patch = None
        if tags.get(store.DIRTY) == "true":
            patch = Path(client.download_artifacts(run_id, "git/diff.patch", scratch)).read_bytes()
        return Published(run_id, tags[store.STYLE], tags.get(store.COMMIT), patch, tags[store.ADAPTER], stages)


def _named(client, name):
    """The run that a name from the command line means."""
    from mlflow.exceptions import MlflowException

    style, at, alias = name.partition("@")
    if at:
        if version := store.version_with_alias(client, style, alias):
            return client.get_run(version.run_id)
        model = store.model_name(style)
        raise InputError(f"run {name!r}: {model} has no version with the alias {alias!r} in {store.uri()}")
    with contextlib.suppress(MlflowException):
        return client.get_run(name)
    found = []
    if name.isalnum() and len(name) >= 6:
        found = store.search(client, f"tags.`{store.FINGERPRINT}` LIKE '{name}%'")
    if len({run.data.tags[store.FINGERPRINT] for run in found}) == 1:
        return found[0]
    several = ", ".join(f"{run.data.tags[store.STYLE]} {run.data.tags[store.FINGERPRINT]}" for run in found)
    why = f"could be any of: {several}" if found else f"is not in {store.uri()}"
    raise InputError(f"run {name!r} {why}; give a run's id, style@alias, or at least 6 digits of a fingerprint")


@contextlib.contextmanager
def _work_tree(here: Path, run: Published, into: Path | None) -> Iterator[Path]:
    """The project as it was, checked out beside the user's own work tree."""
    if not run.commit:
        raise InputError(f"run {run.run_id} was published outside of git: there is no commit to go back to")
    if into and into.exists() and any(into.iterdir()):
        raise InputError(f"--into = {str(into)!r}: must be a new or an empty folder")
    try:
        git.run("cat-file", "-e", f"{run.commit}^{{commit}}", folder=here)
    except InputError:
        raise InputError(
            f"commit {run.commit} of run {run.run_id} is not in this repository: `git fetch` it, or push it from where "
            "the run was published"
        ) from None
    with tempfile.TemporaryDirectory(prefix="aclora-") as scratch:
        top = into.resolve() if into else Path(scratch) / "tree"
        with checkout.work_tree(here, run.commit, top, run.patch, keep=into is not None) as tree:
            yield tree


def _repro(tree, stage):
    """Run one stage with the work tree's own code; its output goes to the terminal."""
    code = os.pathsep.join([str(tree / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    env = {"PYTHONPATH": code, "ACLORA_TRACKING": "off"}
    options = ("--quiet", "--single-item", "--force", "--no-commit")
    status, _ = dvc.run("repro", *options, stage, log=None, folder=tree, env=env)
    if status:
        raise InputError(f"{stage.partition('@')[0]} failed: see above")


def _compare(run, tree):
    found = digest(records.adapter(run.style, tree))
    if found == run.digest:
        print(f"identical: the adapter's digest is {found}")
        return True
    print(f"not identical: the adapter's digest is {found}, recorded {run.digest}; another kind of processor, another")
    print("number of threads or other package versions change the last bits")
    return False


def _content(file):
    return file.read_bytes() if file.exists() else b""

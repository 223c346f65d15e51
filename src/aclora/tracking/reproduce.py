"""A run of MLflow's, trained again in a work tree of its own from the commit, patch and data that it recorded."""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from aclora.core import params
from aclora.core.errors import InputError, printable, quoted
from aclora.core.files import digest, read_json
from aclora.project import checkout, dvc, fingerprint, git, process, records, workspace
from aclora.tracking import store

STAGES = ("caption", "train-aclora")
SHOWN = 300  # lines of a patch


@dataclass(frozen=True)
class Published:
    """What a published run recorded of its inputs; `commit` is None without git, `patch` if nothing differed."""

    run_id: str
    style: str
    commit: str | None
    patch: bytes | None
    digest: str
    stages: dict[str, dict]


def reproduce(name: str, into: Path | None = None, agree: Callable[[], bool] = lambda: True) -> bool:
    """Train the run called `name` (see `find`) again and return whether its adapter is the recorded one.

    Its work tree is a temporary folder, or `into`, which is kept. What is about to run here as this user is printed,
    and `agree` is asked: commit and patch are what the tracking server says. Of the patch, only files that the stages
    read are changed, and their children get no keys or tokens of this process's environment. Where this folder has the
    run's adapter, the result must have the fingerprint in the adapter's own header.

    Raises `InputError` if the run, its commit, its data or its parameters are not available, if `agree` says no, if the
    fingerprint is another, and if a stage fails.
    """
    run = find(name)
    here = Path.cwd()
    _show(run, here)
    if not agree():
        raise InputError(f"not trained again: give --yes if you trust {store.uri()}, whose code this is")
    with _work_tree(here, run, into) as tree:
        if _content(here / "requirements.lock") != _content(tree / "requirements.lock"):
            print("note: this environment's requirements.lock is not the run's")
        dvc.mark_checked(tree)  # it was, when it ran
        if known := _has_adapter(run, here):
            _verify(run, here, tree)
        else:
            folder = records.adapter(run.style, here)
            print(f"warning: the run's adapter is not in {folder}: only {store.uri()} says that this is its code")
        for stage in STAGES[1:] if known else STAGES:
            full = f"{stage}@{run.style}"
            recorded = {full: run.stages[full]}
            checkout.fetch(here, tree, _deps(tree, full))
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
        found = Published(run_id, tags[store.STYLE], tags.get(store.COMMIT), patch, tags[store.ADAPTER], stages)
        _check(found)
        return found


def _check(run):
    """What the server says has the form that it must have before it becomes part of a command or path."""
    params.check_style_name(run.style, f"run {run.run_id}")
    if run.commit and not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", run.commit):
        raise InputError(f"run {run.run_id}: {quoted(run.commit)} is no commit's digest")
    stages = run.stages if isinstance(run.stages, dict) else {}
    for name in (f"{stage}@{run.style}" for stage in STAGES):
        if not isinstance(entry := stages.get(name), dict) or not isinstance(entry.get("deps"), dict):
            raise InputError(f"run {run.run_id}: its dvc/lock.json does not say what {name} depended on")


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
        with checkout.work_tree(here, run.commit, top, keep=into is not None) as tree:
            # what the fingerprint in the adapter's header vouches for is the training's, and nothing else is run then
            _apply(run, tree, STAGES[1:] if _has_adapter(run, here) else STAGES)
            yield tree


def _show(run, here):
    """The commit and the patch, as a person can judge them."""
    print(f"{run.style}, run {run.run_id} of {store.uri()}:")
    subject = ""
    with contextlib.suppress(InputError):
        subject = git.run("log", "-1", "--format=%s", "--end-of-options", run.commit or "HEAD", folder=here).strip()
    print(f"  commit {run.commit} {printable(subject)}{' with uncommitted changes:' if run.patch else ''}")
    lines = (run.patch or b"").decode("utf-8", "replace").splitlines()
    for line in lines[:SHOWN]:
        print(f"    {printable(line)}")
    if lines[SHOWN:]:
        print(f"    … {len(lines) - SHOWN} more lines: the run's artifact git/diff.patch")


def _apply(run, tree, stages):
    """The recorded patch, as far as it changes what these stages of the run read."""
    if not run.patch:
        return
    top = Path(git.run("rev-parse", "--show-toplevel", folder=tree).strip())
    prefix = tree.resolve().relative_to(top.resolve())
    always = [(prefix / name).as_posix() for name in ("params.yaml", "dvc.yaml", "dvc.lock")]
    _apply_to(run.patch, top, always)  # first: they decide what the stages read
    read = [(prefix / dep).as_posix() for stage in stages for dep in _deps(tree, f"{stage}@{run.style}")]
    _apply_to(run.patch, top, [pattern for file in read for pattern in (file, f"{file}/*", f"{file}.dvc")])
    changed = git.run("apply", "--numstat", "-z", "-", folder=top, stdin=run.patch).split("\0")
    names = [entry.split("\t", 2)[2] for entry in changed if entry.count("\t") == 2]
    whole = {*always, *read, *(f"{file}.dvc" for file in read)}
    if unread := [n for n in names if n not in whole and not any(n.startswith(f"{file}/") for file in read)]:
        print(f"  left out, because no stage of the run reads it: {printable(', '.join(unread[:5]))}")


def _apply_to(patch, top, patterns):
    includes = [f"--include={pattern}" for pattern in patterns]
    # compiled code is in no fingerprint, and Python would run it in the place of its source
    git.run("apply", "--whitespace=nowarn", "--exclude=*__pycache__*", *includes, "-", folder=top, stdin=patch)


def _deps(tree, name):
    """The files and folders that a stage depends on, by the dvc.yaml in `tree`."""
    with dvc.opened(tree) as repo:
        stage = dvc.stages(repo).get(name)
        if stage is None:
            raise InputError(f"commit and patch have no stage {name}: the run's records do not fit one another")
        files = [Path(dep.fs_path) for dep in stage.deps if not dvc.holds_params(dep)]
    root = tree.resolve()
    if outside := [file for file in files if not file.resolve().is_relative_to(root)]:
        raise InputError(f"{name} depends on {outside[0]}, which is outside of the project: it cannot be reproduced")
    return [os.path.relpath(file, tree) for file in files]


def _has_adapter(run, here):
    """Whether this folder has the run's own adapter, and the captions that it was trained with."""
    folder = records.adapter(run.style, here)
    return folder.is_dir() and digest(folder) == run.digest and (here / _captions(run)).is_file()


def _captions(run):
    return f"data/captions/{run.style}.jsonl"


def _verify(run, here, tree):
    """Commit and patch have the fingerprint in the header of the run's own adapter, with this folder's captions.

    Raises `InputError` where it is another.
    """
    folder, captions = records.adapter(run.style, here), _captions(run)
    checkout.fetch(here, tree, [*_deps(tree, f"train-aclora@{run.style}"), captions])
    with safe_open(folder / "pytorch_lora_weights.safetensors", "pt") as file:
        recorded = (file.metadata() or {}).get("fingerprint")
    found = fingerprint.train_fingerprint(run.style, tree)
    if found != recorded:
        raise InputError(
            f"run {run.run_id}: its commit and patch have the fingerprint {found}, the adapter's header says "
            f"{recorded}: the records in {store.uri()} are not this adapter's, and nothing of them was run"
        )
    print("  commit, patch and captions have the fingerprint in the adapter's own header")


def _repro(tree, stage):
    """Run one stage with the work tree's own code; its output goes to the terminal."""
    code = os.pathsep.join([str(tree / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    env = process.without_secrets() | {"PYTHONPATH": code, "ACLORA_TRACKING": "off"}
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

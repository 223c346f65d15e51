"""Runs that git and DVC's cache alone have: experiments and commits, published without touching the user's files."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from aclora.core.errors import InputError, did_you_mean
from aclora.project import checkout, git, records, workspace
from aclora.project.home import home
from aclora.project.records import LOCK
from aclora.tracking import store
from aclora.tracking.publish import published

EMPTY = "d751713988987e9331980363e24189ce.dir"  # DVC's hash of an empty folder, which git does not keep


@dataclass(frozen=True)
class Revision:
    """A commit under the name by which the user knows it; an experiment also has the commit that it changes."""

    name: str
    commit: str
    baseline: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a revision's style: its run's address; `note` if there was nothing to do, `error` if it failed."""

    revision: str
    style: str
    address: str = ""
    note: str = ""
    error: str = ""


def experiments(names: Iterable[str] = ()) -> list[Revision]:
    """DVC's experiments of all commits, or those with one of the names. Raises `InputError` for an unknown name."""
    known = [Revision(found.name, found.commit, found.baseline) for found in git.all_experiments()]
    wanted = set(names)
    if unknown := sorted(wanted - {found.name for found in known}):
        listed = did_you_mean(unknown[0], [found.name for found in known]) if known else "there is none"
        raise InputError(f"experiment {unknown[0]!r} is unknown; {listed}")
    return [found for found in known if not wanted or found.name in wanted]


def revision(name: str) -> Revision:
    """The revision of git's, or the experiment, that `name` means. Raises `InputError` if it means none."""
    commit = git.commit_of(name)
    if commit is None:
        known = {found.name: found for found in experiments()}
        if name not in known:
            raise InputError(f"{name!r} is no git revision and no experiment")
        return known[name]
    return next((found for found in experiments() if found.commit == commit), Revision(name, commit))


def publish_revisions(revisions: list[Revision], styles: list[str] | None = None) -> Iterator[Outcome]:
    """Publish the runs of `styles`, or of all, in each of the revisions; what became of each, as it happens.

    A run that is complete in MLflow is known by its dvc.lock alone: nothing is checked out for it. A style that an
    experiment did not run is its commit's affair. A revision that cannot be published does not stop the others. Raises
    `InputError` if the tracking store cannot be used.
    """
    with store.connected() as client, store.alone("publish"):
        scratch = home() / ".cache/revisions"
        shutil.rmtree(scratch, ignore_errors=True)  # of one that was killed
        git.run("worktree", "prune")
        for revision in revisions:
            yield from _publish(client, revision, styles, scratch)


def _publish(client, revision, styles, scratch):
    try:
        text = _lock(revision.commit)
        before = _lock(revision.baseline) if revision.baseline else ""
        known = records.locked_styles(text)
    except InputError as error:
        yield Outcome(revision.name, "", error=str(error))
        return
    for style in styles or ():
        if style not in known:
            yield Outcome(revision.name, style, note="has no results here")
    if not known and not styles:
        yield Outcome(revision.name, "", note="has no results")
    with ExitStack() as stack:
        tree = None
        for style in known:
            if styles and style not in styles:
                continue
            lock = records.lock_digest(text, style)
            if lock == records.lock_digest(before, style):
                yield Outcome(revision.name, style, note=f"as in commit {revision.baseline[:7]}")
                continue
            if run := store.complete(client, style, lock):
                yield Outcome(revision.name, style, store.address(run))
                continue
            try:
                tree = tree or stack.enter_context(_checked_out(revision.commit, scratch))
                yield Outcome(revision.name, style, _address(client, revision, style, tree))
            except (InputError, OSError, KeyError, ValueError) as error:
                yield Outcome(revision.name, style, error=" ".join(str(error).split()))


def _address(client, revision, style, tree):
    """Publish a style from the revision's work tree; the run's address."""
    stages = records.locked(style, tree)
    for name, stage in stages.items():
        if None in stage["outs"].values():
            raise InputError(f"{name} did not run in it")
    deps = [path for stage in stages.values() for path in stage["deps"]]
    outs = {path: md5 for stage in stages.values() for path, md5 in stage["outs"].items()}
    for path, md5 in outs.items():
        if md5 == EMPTY:
            (tree / path).mkdir(parents=True, exist_ok=True)
    checkout.fetch(Path.cwd(), tree, [path for path in deps if path not in outs], outs)
    if why := workspace.stale([style], tree):
        raise InputError(f"{why}: its results are not those of its parameters and files")
    experiment = revision.name if revision.baseline else None
    return store.address(published(client, style, tree, experiment, revision.baseline or "HEAD"))


def _checked_out(commit, scratch):
    scratch.mkdir(parents=True, exist_ok=True)
    return checkout.work_tree(Path.cwd(), commit, Path(tempfile.mkdtemp(dir=scratch)))


def _lock(commit):
    """The text of a commit's dvc.lock; empty if it has none."""
    try:
        return git.run("show", f"{commit}:./{LOCK}")
    except InputError:
        return ""

"""`aclora reproduce` in a fresh clone: pictures from a DVC remote, parameters from the run's patch."""

import os
import shutil

import pytest

from aclora.tracking import store
from tests.pipeline.conftest import Project
from tests.pipeline.test_publish import STYLE, copied

pytestmark = pytest.mark.slow
PICTURES = f"data/styles/{STYLE}"
REMOTE = "dvc remote add -q --local -d shared ../remote"
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@t")


@pytest.fixture(scope="module")
def origin(done, tmp_path_factory):
    """The finished project with its pictures in DVC instead of git, pushed to a folder beside it; published."""
    project = copied(done, tmp_path_factory.mktemp("reproduce") / "origin")
    for command in (
        f"git rm -rq --cached {PICTURES}",
        f"dvc add -q {PICTURES}",
        REMOTE,
        f"dvc push -q {PICTURES}",
        f"git add {PICTURES}.dvc data/styles/.gitignore",
    ):
        ran = project.run(*command.split())
        assert ran.returncode == 0, (command, ran.stderr)
    assert project.run("git", *IDENTITY, "commit", "-qm", "pictures in DVC").returncode == 0
    ran = project.run("python", "-c", f"from aclora.tracking.publish import promote; promote('{STYLE}')")
    assert ran.returncode == 0, ran.stderr
    return project


@pytest.fixture
def clone(origin, monkeypatch):
    """A fresh clone beside the project, which knows its tracking store and its remote."""
    folder = origin.folder.parent / "clone"
    shutil.rmtree(folder, ignore_errors=True)
    origin.run("git", "clone", "-q", str(origin.folder), str(folder))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{origin.folder}/mlflow.db")
    clone = Project(folder)
    assert clone.run(*REMOTE.split()).returncode == 0
    return clone


def untouched(clone):
    assert clone.run("git", "status", "--short").stdout == ""
    assert clone.run("git", "worktree", "list").stdout.count("\n") == 1
    assert not (clone.folder / PICTURES).exists()
    assert not (clone.folder / "models/adapters" / STYLE).exists()


def test_the_recorded_adapter_is_reproduced(clone):
    done = clone.run("aclora", "reproduce", f"{STYLE}@champion", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with uncommitted changes" in done.stdout  # the small parameters
    assert "\nidentical: the adapter's digest is " in done.stdout
    assert "8/8" in done.stderr  # it trained, though the run-cache has the result
    untouched(clone)


def test_a_different_adapter_is_reported_and_the_tree_can_be_kept(clone, origin, monkeypatch):
    with store.connected() as client:
        (run,) = client.search_runs([client.get_experiment_by_name("aclora").experiment_id])
        recorded = run.data.tags["aclora.adapter"]
        client.set_tag(run.info.run_id, "aclora.adapter", "0" * 64)
    try:
        kept = clone.folder.parent / "kept"
        done = clone.run("aclora", "reproduce", run.data.tags["aclora.fingerprint"][:8], "--yes", "--into", str(kept))
    finally:
        with store.connected() as client:
            client.set_tag(run.info.run_id, "aclora.adapter", recorded)
    assert done.returncode == 1, done.stderr
    assert f"not identical: the adapter's digest is {recorded}, recorded {'0' * 64}" in done.stdout
    assert (kept / "models/adapters" / STYLE / "history.jsonl").exists()
    assert clone.run("git", "status", "--short").stdout == ""


def test_errors_are_one_line_and_leave_nothing_behind(clone, origin):
    def refused(*args):
        done = clone.run("aclora", "reproduce", "--yes", *args)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr
        untouched(clone)
        return done.stderr

    assert "no version with the alias 'best'" in refused(f"{STYLE}@best")
    assert "--into" in refused(f"{STYLE}@champion", "--into", "src")
    remote = origin.folder.parent / "remote"
    os.rename(remote, remote.with_name("away"))
    try:
        assert f"{PICTURES} is neither in git nor in DVC's cache, and cannot be fetched: " in refused(
            f"{STYLE}@champion"
        )
        assert clone.run("dvc", "remote", "remove", "--local", "shared").returncode == 0
        assert "there is no DVC remote" in refused(f"{STYLE}@champion")
    finally:
        os.rename(remote.with_name("away"), remote)
    empty = Project(clone.folder.parent / "other")
    empty.folder.mkdir()
    empty.run("git", "init", "-q")
    code = {"PYTHONPATH": str(origin.folder / "src")}
    done = empty.run("aclora", "reproduce", f"{STYLE}@champion", "--yes", env=code)
    assert "is not in this repository: `git fetch` it" in done.stderr

"""A team: clones with a worker each and a coordinator's, on one Prefect server; results travel by DVC's remote."""

import contextlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from aclora.project import git
from flows.style import style
from flows.team import submit, team
from tests.flows import services
from tests.flows.conftest import Toy

STYLES = ["oil", "ink", "chalk", "crayon", "etching", "gouache", "mosaic", "pastel"]
STAGES = ("caption", "train-aclora", "evaluate")


class Clones(Toy):
    """The coordinator's clone of a toy with many styles, and others of the same origin beside it."""

    def __init__(self, folder: Path, remote: str, key: str | None = None, styles: list[str] = STYLES):
        super().__init__(folder)
        self.key = key
        entries = "".join(
            f"  {s}: {{pictures: pictures/{s}, trigger: zxq style, reference: pictures/{s}}}\n" for s in styles
        )
        lines = (folder / "params.yaml").read_text().splitlines(keepends=True)
        (folder / "params.yaml").write_text("styles:\n" + entries + "".join(lines[3:]))
        for one in styles:
            (folder / "pictures" / one).mkdir(exist_ok=True)
            (folder / "pictures" / one / "1.png").write_text(one)
        self.run("dvc", "remote", "add", "-q", "--default", "shared", remote)
        self.commit()
        self.origin = folder.parent / "origin.git"
        self.run("git", "clone", "-q", "--bare", ".", str(self.origin))
        self.run("git", "remote", "add", "origin", str(self.origin))
        self.run("git", "fetch", "-q")
        self.run("git", "branch", "-q", "-u", "origin/main")
        self.unlock(folder)

    def unlock(self, folder: Path) -> None:
        """Configure the SSH remote's key, which every clone has for itself."""
        if self.key:
            self.run("dvc", "--cd", str(folder), "remote", "modify", "--local", "shared", "keyfile", self.key)

    def clone(self, name: str) -> Path:
        """Another clone."""
        folder = self.folder.parent / name
        self.run("git", "clone", "-q", str(self.origin), str(folder))
        self.unlock(folder)
        return folder


@pytest.fixture
def clones(request, tmp_path):
    """Clones that share by a folder, or over SSH."""
    if request.param == "folder":
        yield Clones(tmp_path / "coordinator", str(tmp_path / "shared"))
        return
    services.needed_module("dvc_ssh")
    with services.sshd(tmp_path) as (url, key):
        yield Clones(tmp_path / "coordinator", url, key)


@pytest.fixture
def servers(tmp_path):
    """Prefect's server; its workers end before it."""
    with services.postgres() as database, contextlib.ExitStack() as stack:
        yield services.Prefect(tmp_path, database, stack)


@pytest.mark.slow
@pytest.mark.parametrize("clones", ["folder", "ssh"], indirect=True)
def test_eight_styles_two_workers_one_lock(clones, servers):
    clones.run("python", "-m", "flows.server", "deploy", env=servers.env("deploy"))
    others = [clones.clone("one"), clones.clone("two")]
    for folder in others:
        servers.start(folder.name, folder, "worker", "start", "--pool", "gpu", "--limit", "1", "--name", folder.name)
    servers.start("coordinator", clones.folder, "worker", "start", "--pool", "coordinator", "--limit", "1")
    output = clones.run("python", "-m", "flows.start", "team", "--watch", env=servers.env("start"), check=False).stdout
    assert "Completed: 8 of 8 styles by the workers, committed " in output, output
    assert " and pushed; 0 stages ran" in output

    # each stage of each style ran once, in one of the workers' clones, and both had some
    states = Counter((t["name"], t["state"]["name"]) for t in servers.ask("task_runs/filter") if "@" in t["name"])
    assert states == Counter({(f"{stage}@{one}", "Ran"): 1 for stage in STAGES for one in STYLES})
    trained = {f.name: sorted(f.glob(".cache/training/*/history.jsonl")) for f in (*others, clones.folder)}
    assert not trained.pop("coordinator")
    assert min(map(len, trained.values())) >= 1
    assert sum(map(len, trained.values())) == 8
    assert all(len(file.read_text().splitlines()) == 2 for files in trained.values() for file in files)

    # one lock with all of it, committed and pushed; everything stands in the coordinator's clone
    assert clones.run("git", "status", "--porcelain").stdout == ""
    assert clones.run("git", "log", "origin/main", "-1", "--format=%s").stdout == f"team: {', '.join(STYLES)}\n"
    assert clones.run("dvc", "status").stdout.strip().endswith("up to date.")
    lock = (clones.folder / "dvc.lock").read_text()
    for one in STYLES:
        assert json.loads((clones.folder / f"metrics/{one}/scores.json").read_text()) == {"kid": 1 / 3}
        assert all(f"{stage}@{one}:" in lock for stage in STAGES)
    assert "run here" not in output
    if clones.key:
        return

    # a worker's failure is reported, other results are gathered all the same; nothing else runs
    (clones.folder / "pictures/oil/bad.png").touch()
    (clones.folder / "pictures/ink/2.png").write_text("another")
    clones.commit()
    clones.run("git", "push", "-q")
    output = clones.run("python", "-m", "flows.start", "team", "--watch", env=servers.env("start"), check=False).stdout
    assert "Failed: 1 of 2 styles by the workers, committed " in output, output
    why = "caption@oil: pictures/oil/bad.png is no picture: remove it"
    assert f"; oil: Failed, 1 failed, 2 notrun. {why}\n" in output
    assert clones.run("git", "log", "origin/main", "-1", "--format=%s").stdout == "team: ink\n"
    stale = json.loads(clones.run("dvc", "status", "--json").stdout)
    assert set(stale) == {"caption@oil"}


@pytest.fixture
def pair(tmp_path, monkeypatch) -> Clones:
    """Two clones of a project of two styles; the current folder is the other one."""
    clones = Clones(tmp_path / "coordinator", str(tmp_path / "shared"), styles=STYLES[:2])
    monkeypatch.chdir(clones.clone("other"))
    return clones


@pytest.mark.slow
def test_a_worker_goes_to_the_coordinators_commit(pair, prefect):
    def at(commit):
        state = style(["oil"], remote=True, commit=commit, return_state=True)
        return state, prefect.tasks(str(state.state_details.flow_run_id))

    first = pair.run("git", "rev-parse", "HEAD").stdout.strip()
    state, tasks = at(first)
    assert state.is_completed(), state.message
    assert tasks == {f"{stage}@oil": "Ran" for stage in STAGES}
    pair.edit("params.yaml", "seed: 0", "seed: 1")
    pair.commit()
    pair.run("git", "push", "-q")
    second = pair.run("git", "rev-parse", "HEAD").stdout.strip()
    assert at(second)[1] == {"caption@oil": "Restored", "train-aclora@oil": "Ran", "evaluate@oil": "Ran"}
    assert git.run("rev-parse", "HEAD").strip() == second

    # results that nobody can fetch are no success: the coordinator would run it all again
    shutil.rmtree(pair.folder.parent / "shared")
    (pair.folder.parent / "shared").touch()
    state, _ = at(first)
    assert state.is_failed()
    assert "1 failed. push: " in state.message

    Path("notes").touch()
    state, tasks = at(first)
    assert state.message.startswith("the work tree is dirty: notes; a run for the team starts from a commit")
    assert not tasks


def test_bad_input_starts_nothing(pair, prefect, monkeypatch):
    monkeypatch.chdir(pair.folder)

    def message(*args):
        return team(*args, return_state=True).message

    assert message(["oyl"]).startswith("style 'oyl' is unknown")
    assert message(None, 2) == "margin = 2.0: must be between 0 and 1"
    pair.edit("params.yaml", "seed: 0", "seed: 1")
    assert message().startswith("the work tree is dirty: params.yaml; team starts from a commit")
    pair.commit()
    assert message().endswith("is in no branch of a git remote, workers cannot get it: git push first")
    pair.run("dvc", "remote", "remove", "shared")
    assert message().startswith("remote is true and DVC has no default remote")


def test_an_unfinished_run_is_joined(pair, prefect):
    """A coordinator that restarts does not have a style trained again."""
    given = {"styles": ["oil"], "remote": True, "commit": "c" * 40}
    first = submit("oil", "c" * 40)
    assert first.parameters == given
    assert submit("oil", "c" * 40).id == first.id
    assert submit("ink", "c" * 40).id != first.id

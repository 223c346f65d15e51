"""A team: clones with a worker each and a coordinator's, on one Prefect server; results travel by DVC's remote."""

import contextlib
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.flows import services
from tests.flows.conftest import Toy

STYLES = ["oil", "ink", "chalk", "crayon", "etching", "gouache", "mosaic", "pastel"]
STAGES = ("caption", "train-aclora", "evaluate")


class Clones(Toy):
    """The coordinator's clone of a toy with eight styles, and others of the same origin beside it."""

    def __init__(self, folder: Path, remote: str, keyfile: str | None = None):
        super().__init__(folder)
        self.keyfile = keyfile
        entries = "".join(
            f"  {s}: {{pictures: pictures/{s}, trigger: zxq style, reference: pictures/{s}}}\n" for s in STYLES
        )
        lines = (folder / "params.yaml").read_text().splitlines(keepends=True)
        (folder / "params.yaml").write_text("styles:\n" + entries + "".join(lines[3:]))
        for style in STYLES:
            (folder / "pictures" / style).mkdir(exist_ok=True)
            (folder / "pictures" / style / "1.png").write_text(style)
        self.run("dvc", "remote", "add", "-q", "--default", "shared", remote)
        self.commit()
        self.origin = folder.parent / "origin.git"
        self.run("git", "clone", "-q", "--bare", ".", str(self.origin))
        self.run("git", "remote", "add", "origin", str(self.origin))
        self.run("git", "fetch", "-q")
        self.run("git", "branch", "-q", "-u", "origin/main")
        self.unlock(folder)

    def unlock(self, folder: Path) -> None:
        """The key of a remote over SSH: a clone's own affair."""
        if self.keyfile:
            self.run("dvc", "--cd", str(folder), "remote", "modify", "--local", "shared", "keyfile", self.keyfile)

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
    pytest.importorskip("dvc_ssh", reason="dvc-ssh is not installed: pip install -c requirements.lock -e '.[team]'")
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
    said = clones.run("python", "-m", "flows.start", "team", "--watch", env=servers.env("start"), check=False).stdout
    assert "Completed: 8 of 8 styles by the workers, committed " in said, said
    assert " and pushed; 0 stages ran" in said

    # each stage of each style ran once, in one of the workers' clones, and both had some
    states = Counter((t["name"], t["state"]["name"]) for t in servers.ask("task_runs/filter") if "@" in t["name"])
    assert states == Counter({(f"{stage}@{style}", "Ran"): 1 for stage in STAGES for style in STYLES})
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
    for style in STYLES:
        assert json.loads((clones.folder / f"metrics/{style}/scores.json").read_text()) == {"kid": 1 / 3}
        assert all(f"{stage}@{style}:" in lock for stage in STAGES)
    assert "run here" not in said

    again = clones.run("python", "-m", "flows.start", "team", "--watch", env=servers.env("start")).stdout
    assert "Completed: 0 of 0 styles by the workers; 0 stages ran" in again

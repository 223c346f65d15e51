"""A copy of the whole project, small parameters, run by DVC itself."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import ROOT

# The drawn style in a few epochs, with more than two RESTARTs, and few pictures.
SMALL = {
    "  epochs: ": "  epochs: 8",
    "  restart_every: ": "  restart_every: 2",
    "  images_per_prompt: ": "  images_per_prompt: 1",
    "  num_inference_steps: ": "  num_inference_steps: 4",
    "  held_out: ": "  held_out: 24",
}

# Compiled once for all runs, outside of the projects: where a machine keeps no byte code, importing takes longer than
# what a stage does.
BYTE_CODE = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "aclora-bytecode")}


class Project:
    """A work tree of its own, in which commands run as a user runs them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run(self, *command: str, env: dict | None = None) -> subprocess.CompletedProcess:
        """Run a command with the environment's python first on the path and this tree's code."""
        bin_folder = str(Path(sys.executable).parent)
        path = os.pathsep.join([bin_folder, os.environ["PATH"]])
        code = os.pathsep.join([str(self.folder / "src"), *((env or {}).pop("PYTHONPATH", "").split())])
        plain = {"PATH": path, "PYTHONPATH": code, "HF_HUB_OFFLINE": "1", "ACLORA_TRACKING": "off"} | BYTE_CODE
        full = os.environ | plain | (env or {})
        return subprocess.run(command, cwd=self.folder, env=full, capture_output=True, text=True)

    def repro(self, *args: str, env: dict | None = None) -> str:
        """`dvc repro` that must succeed; its output."""
        done = self.run("dvc", "repro", *args, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace the one line that starts with `old`, or the text `old`."""
        path = self.folder / file
        lines = path.read_text(encoding="utf-8").split("\n")
        hits = [i for i, line in enumerate(lines) if line.startswith(old)]
        assert len(hits) == 1, f"{old!r} starts {len(hits)} lines of {file}"
        lines[hits[0]] = new
        path.write_text("\n".join(lines), encoding="utf-8")


def copy(to: Path, small: bool = True) -> Project:
    """The tracked and new files of this work tree, in a git repository of their own; SMALL, or as they stand."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    project = Project(to)
    if small:
        (to / "dvc.lock").unlink(missing_ok=True)
        (to / "data/styles/watercolor/03.txt").unlink()  # for the captioner to write
    project.run("git", "init", "-q")
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
    for old, new in SMALL.items() if small else ():
        project.edit("params.yaml", old, new)
    return project


@pytest.fixture
def project(tmp_path) -> Project:
    """A fresh copy, nothing run yet."""
    return copy(tmp_path / "project")


@pytest.fixture(scope="session")
def done(tmp_path_factory) -> Project:
    """A copy in which `dvc repro` has run, every file that a stage opened written down.

    Test processes that run side by side make it once; each has a copy of its own.
    """
    own = tmp_path_factory.mktemp("done")
    shared = own.parent.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with FileLock(shared / "done.lock"):
        if not (shared / "finished").exists():
            _finish(shared / "finished.part")
            (shared / "finished.part").rename(shared / "finished")
    shutil.copytree(shared / "finished", own / "copy", symlinks=True)
    made = Project(own / "copy/project")
    made.spy = own / "copy/spy"
    return made


@pytest.fixture(scope="module")
def own(done, tmp_path_factory) -> Project:
    """A copy of the finished project for the tests of one file, which leave another run behind than they found."""
    folder = tmp_path_factory.mktemp("own") / "project"
    shutil.copytree(done.folder, folder, symlinks=True)
    return Project(folder)


def _finish(folder: Path) -> None:
    """Run the pipeline in `folder`/project, with a spy on what its stages open in `folder`/spy."""
    made = copy(folder / "project")
    spy = folder / "spy"
    spy.mkdir()
    shutil.copy(Path(__file__).with_name("spy.py"), spy / "sitecustomize.py")
    # without byte code a stage opens the sources themselves
    plain = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": ""}
    made.repro(env={"PYTHONPATH": str(spy), "OPENED": str(spy)} | plain)

"""A stage ends in one line where a file or memory fails, and with its parent where it is asked to."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aclora.core import stage, startup
from aclora.core.failures import one_line
from tests.conftest import ROOT

WAITING = """
import sys
from aclora.core.stage import run
def main(style):
    print("ready", flush=True)
    sys.stdin.read()
sys.argv = ["stage", "watercolor"]
run(main, "")
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


STAGES = sorted(file.stem for file in (ROOT / "stages").glob("*.py"))


@pytest.fixture
def ended(monkeypatch, capsys):
    """Run a main as the stage `train`: its exit status and its one line on stderr."""

    def run(main):
        monkeypatch.setattr(sys, "argv", ["stages/train.py", "watercolor"])
        try:
            with pytest.raises(SystemExit) as end:
                stage.run(main, "")
        finally:
            for number in startup.WORDS:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return end.value.code, said.strip()

    return run


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line(ended):
    status, said = ended(lambda style: Path("/dev/full").write_text("x"))
    assert (status, said) == (1, "error: a file: no space left on its disk: free some, then repeat")


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        (lambda folder: (folder / "none").read_text(), "{folder}/none: no such file or folder"),
        (lambda folder: folder.read_text(), "{folder}: is a folder, and a file is needed"),
        (lambda folder: (folder / "file/x").read_text(), "{folder}/file/x: a file stands where a folder is needed"),
        (lambda folder: (folder / "file").mkdir(), "{folder}/file: file exists"),
        (lambda folder: (folder / ("n" * 300)).touch(), "{folder}/" + "n" * 300 + ": the name is too long"),
        (lambda folder: (folder / "circle").read_text(), "{folder}/circle: symbolic links lead in a circle"),
        (lambda folder: (folder / "file").rename(folder / "none/x"), "{folder}/none/x: no such file or folder"),
    ],
)
def test_a_file_that_fails_is_one_line_with_its_name(ended, tmp_path, fail, said):
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    assert ended(lambda style: fail(tmp_path)) == (1, "error: " + said.replace("{folder}", str(tmp_path)))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "x: permission denied: change its owner or its mode"),
        (errno.EROFS, "x: its disk is mounted read-only"),
        (errno.EDQUOT, "x: the disk quota is used up: free some, then repeat"),
        (errno.EMFILE, "x: too many open files: raise the limit (ulimit -n), then repeat"),
        (errno.EXDEV, "x: invalid cross-device link"),
    ],
)
def test_the_systems_reasons(number, said):
    """Of those that a superuser, who may run this, never meets."""
    assert one_line(OSError(number, os.strerror(number), "x")) == said


def test_memory_that_runs_out_names_the_knobs(ended):
    import torch

    status, said = ended(lambda style: torch.empty(1 << 60, dtype=torch.uint8))
    assert status == 1
    assert said.startswith("error: memory is too small for this: lower train.batch_size or train.resolution")
    said = one_line(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), "generate")
    assert (
        said == "the GPU's memory is too small for this: lower generate.batch_size, or end other programs that use it"
    )
    assert one_line(MemoryError(), "evaluate").startswith("memory is too small for this: lower evaluate.batch_size")


def test_a_fault_of_the_code_keeps_its_traceback():
    assert one_line(KeyError("x")) is None
    assert one_line(RuntimeError("shapes")) is None


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.skipif(sys.platform != "linux", reason="GNU's library of threads")
@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        ({}, 10_000),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, 30_000_000_000),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, 0),
        ({"GOMP_SPINCOUNT": "7"}, 7),
    ],
)
def test_torchs_threads_spin_shortly_unless_one_says_otherwise(name, chosen, count):
    """How long they spin, as the library of torch's threads says itself: 300000 where no variable is set."""
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")} | chosen
    env |= {"OMP_DISPLAY_ENV": "VERBOSE"}
    command = [sys.executable, "-c", f"import stages.{name}, torch"]
    shown = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stderr
    assert f"GOMP_SPINCOUNT = '{count}'" in shown


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
@pytest.mark.parametrize("asked", [True, False])
def test_a_stage_ends_with_its_parent_where_it_is_asked_to(asked):
    env = {k: v for k, v in os.environ.items() if k != "ACLORA_DIE_WITH_PARENT"}
    env |= {"ACLORA_DIE_WITH_PARENT": "1"} if asked else {}
    command = [sys.executable, "-c", PARENT, WAITING]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        # the pipe to the child stays open here, or its input would end with the parent too
        kept = os.open(f"/proc/{parent.pid}/fd/{pipe_to(child, parent.pid)}", os.O_WRONLY)
        parent.kill()
    try:
        assert ends(child) == asked
    finally:
        os.close(kept)
        if not asked:
            assert ends(child)


def pipe_to(child, parent):
    """The parent's descriptor of the pipe that is the child's standard input."""
    wanted = os.readlink(f"/proc/{child}/fd/0")
    return next(fd for fd in os.listdir(f"/proc/{parent}/fd") if os.readlink(f"/proc/{parent}/fd/{fd}") == wanted)


def ends(pid, within=3.0):
    """Whether a process that is nobody's child here ends in time."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.01)
    return False

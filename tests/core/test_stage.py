"""A stage ends in one line where a disk is full, and with its parent where it is asked to."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aclora.core import stage
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stage", "watercolor"])
    with pytest.raises(SystemExit) as ended:
        stage.run(lambda style: Path("/dev/full").write_text("x"), "")
    assert ended.value.code == 1
    assert "no space left on its disk: free some" in capsys.readouterr().err


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

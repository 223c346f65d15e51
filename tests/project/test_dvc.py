"""DVC's view of a project, its commands, and what a killed dvc leaves behind."""

import subprocess
import sys
import time

import pytest

from aclora.core.errors import InputError
from aclora.project import dvc
from tests.conftest import ROOT

PIPELINE = """
stages:
  copy:
    cmd: cp {source} copied
    deps: [source]
    outs: [copied]
  fail:
    cmd: 'echo "error: no ink" >&2; exit 1'
    deps: [copied]
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A DVC project of two stages, the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text((ROOT / ".dvc/config").read_text() + "    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text(PIPELINE.replace("{source}", "source"))
    (tmp_path / "source").write_text("1")
    return tmp_path


def test_outside_of_a_project_it_says_so(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} is not a DVC project"), dvc.opened(tmp_path):
        pass


def test_what_dvc_says_is_one_line(project):
    (project / "dvc.yaml").write_text("stages: 1")
    with pytest.raises(InputError, match=r"^DVC: [^\n]*dvc\.yaml") as error, dvc.opened() as repo:
        repo.index.stages  # noqa: B018, reads the file
    assert "\n" not in str(error.value)


def test_a_command_its_status_its_lines_and_what_is_out_of_date(project):
    heard = []
    assert set(dvc.status(["copy", "fail"])) == {"copy", "fail"}
    assert dvc.run("repro", "copy", log=heard.append)[0] == 0
    assert any(line.startswith("Running stage 'copy'") for line in heard)
    assert (project / "copied").read_text() == "1"
    assert set(dvc.status(["copy", "fail"])) == {"fail"}
    assert dvc.status(["copy"]) == {}
    assert dvc.status([]) == {}
    status, lines = dvc.run("repro", log=lambda line: None)
    assert status != 0
    assert dvc.process.reason(lines) == "no ink"


def test_while_another_process_runs_a_stage_its_status_is_unknown(project):
    (project / "dvc.yaml").write_text(PIPELINE.replace("cp {source} copied", "touch running; sleep 600"))
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q", "copy"], cwd=project) as other:
        try:
            while not (project / "running").exists():
                assert other.poll() is None
                time.sleep(0.05)
            assert dvc.status(["copy"]) is None
        finally:
            dvc.process.end(other.pid)


@pytest.mark.parametrize("left", ["", '{"write": {"/x": {"pid": 1'])
def test_half_a_table_of_locks_is_removed_and_dvc_runs_again(project, left):
    (project / ".dvc/tmp").mkdir()
    (project / ".dvc/tmp/rwlock").write_text(left)
    status, lines = dvc.run("repro", "copy", log=lambda line: None)
    assert status == 0, lines
    assert (project / "copied").exists()


def test_a_whole_table_of_locks_stays(project):
    (project / ".dvc/tmp").mkdir()
    table = project / ".dvc/tmp/rwlock"
    table.write_text("{}")
    dvc.mend_lock(print)
    assert table.read_text() == "{}"

"""What a killed run or a full disk leaves is mended by the next, and how DVC ended is told truly."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aclora.core.errors import InputError
from aclora.core.files import part_of
from aclora.project import dvc, pipeline, process
from tests.conftest import ROOT

PIPELINE = """
stages:
  make:
    foreach: [oil, ink]
    do:
      cmd: mkdir made-${item} && cp source made-${item}/a && echo b > made-${item}/b && echo ${item} >> ran
      deps: [source]
      outs: ['made-${item}']
  count:
    foreach: [oil, ink]
    do:
      cmd: ls made-${item} > count-${item}
      deps: ['made-${item}']
      outs: ['count-${item}']
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A DVC project of two styles with two stages each, the current folder; `ran` lists what ran."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text((ROOT / ".dvc/config").read_text() + "    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "source").write_text("1")
    return tmp_path


@pytest.fixture
def full(tmp_path_factory, monkeypatch):
    """From now on child processes cannot write to DVC's cache of files."""
    folder = tmp_path_factory.mktemp("faults")
    shutil.copy(ROOT / "tests/faults.py", folder / "sitecustomize.py")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT / "src")]))
    monkeypatch.setenv("FULL", ".dvc/cache/files")
    return monkeypatch


def run(*styles):
    """Prepare and run: the status, the reason and what was said."""
    said = []
    pipeline.prepare(said.append)
    status, lines = pipeline.run_stages(pipeline.stages_of(list(styles) or None), log=lambda line: None)
    return status, pipeline.reason(lines), said


def gone() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    return child.pid


def test_only_these_styles_stages_run(project):
    assert pipeline.stages_of(None) == ["make@oil", "make@ink", "count@oil", "count@ink"]
    assert run("ink")[0] == 0
    assert (project / "ran").read_text() == "ink\n"
    assert run()[0] == 0
    assert (project / "ran").read_text() == "ink\noil\n"


def test_a_full_disk_is_no_success_and_loses_no_work(project, full):
    status, why, _ = run("oil")
    assert status != 0
    assert "no space left on the disk of .dvc/cache: free some" in why
    full.delenv("FULL")
    status, why, said = run("oil")
    assert (status, (project / "ran").read_text()) == (0, "oil\n"), "the same work was done twice"
    assert said == ["make@oil: its outputs had not reached DVC's cache, now they have"]
    shutil.rmtree(project / "made-oil")
    assert dvc.run("checkout", "make@oil", log=lambda line: None)[0] == 0


def test_dvc_alone_says_success_where_this_does_not(project, full):
    command = [sys.executable, "-m", "dvc", "repro", "-s", "make@oil"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    shutil.rmtree(project / "made-oil")
    (project / "dvc.lock").unlink()
    status, lines = dvc.run("repro", "-s", "make@oil", log=lambda line: None)
    assert status == 1
    assert process.reason(lines).startswith("no space left on the disk of .dvc/cache: free some")


PREPARE = """
from aclora.core.errors import InputError
from aclora.project import pipeline
try:
    pipeline.prepare(print)
except InputError as error:
    print(error)
"""


def test_still_no_room_is_said_before_anything_runs(project, full):
    assert run("oil")[0] != 0
    done = subprocess.run([sys.executable, "-c", PREPARE], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("made-oil: no space left on the disk of .dvc/cache: free some"), done
    assert done.stdout.count("\n") == 1
    assert (project / "made-oil/a").exists()


def test_an_out_that_left_the_cache_while_it_ran_is_no_success(project):
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("cmd: ls", "cmd: rm -r .dvc/cache/files && ls"))
    status, why, _ = run("oil")
    assert status == 1
    assert why.startswith("make@oil: made-oil did not reach DVC's cache")


def test_what_changes_while_it_runs_is_said(project):
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("cmd: ls", "cmd: echo 2 > source && ls"))
    status, why, _ = run("oil")
    assert (status, why) == (1, "make@oil is out of date again (source): something changed while it ran; run again")


@pytest.mark.parametrize(
    "left", ["", '{"write": {"/x": {"pid": 1', "[]", '{"write": {"/x": 1}}', '{"read": {"/x": {}}}']
)
def test_half_a_table_of_locks_is_removed(project, left):
    (project / ".dvc/tmp").mkdir()
    (project / ".dvc/tmp/rwlock").write_text(left)
    status, _, said = run("oil")
    assert status == 0
    assert said == [".dvc/tmp/rwlock: removed it: a killed dvc left half of it"]


def test_a_lock_whose_process_is_gone_does_not_block_even_if_another_has_its_id(project):
    assert run("oil")[0] == 0
    table = project / ".dvc/tmp/rwlock"
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            locks = [{"pid": pid, "cmd": "dvc repro"} for pid in (gone(), os.getpid(), other.pid)]
            held = {str(project / f"made-{i}"): lock for i, lock in enumerate(locks)}
            read = {str(project / "made-oil"): locks}
            table.write_text(json.dumps({"write": held, "read": read}))
            pipeline.prepare(print)
            assert json.loads(table.read_text())["read"] == {str(project / "made-oil"): [locks[1]]}  # an old python
            os.utime(table, (1, 1))
            (project / "source").write_text("2")
            assert run("oil")[0] == 0
        finally:
            other.kill()
    assert (project / "ran").read_text() == "oil\noil\n"


def test_parts_of_processes_that_are_gone_are_removed_and_no_others(project):
    dead, reused, alive = (project / f".made-oil.{pid}.part" for pid in (gone(), os.getpid(), os.getppid()))
    for part in (dead, reused):
        part.mkdir()
        (part / "half").touch()
    os.utime(reused, (0, 0))  # older than the process that has the id now
    alive.touch()
    (project / ".made-oil.part").touch()
    status, _, said = run("oil")
    assert status == 0
    assert {line.split(":")[0] for line in said} == {f"removed {part}" for part in (dead, reused)}
    assert {p.name for p in project.glob("*.part")} == {alive.name, ".made-oil.part"}


def test_half_copied_files_leave_the_cache_once_nobody_writes_them(project):
    assert run("oil")[0] == 0
    place = project / ".dvc/cache/files/md5/00"
    place.mkdir(exist_ok=True)
    left, fresh, held, other = (place / f"{name}.tmp" for name in ("." + "a" * 22, "." + "b" * 22, "." + "c" * 22, "x"))
    for file in (left, fresh, held, other):
        file.write_text("half")
    for file in (left, held, other):
        os.utime(file, (1, 1))
    with held.open():
        said = run("oil")[2]
    assert said == [f"removed 1 half copied files from {project / '.dvc/cache'}, 0.0 MB"]
    assert {f.name for f in place.glob("*.tmp")} | {f.name for f in place.glob(".*.tmp")} == {
        fresh.name,
        held.name,
        other.name,
    }


def test_a_dvc_killed_before_it_wrote_a_result_blocks_no_stage(project):
    assert run("oil")[0] == 0
    for result in project.glob(".dvc/cache/runs/*/*/*"):
        result.unlink()
    (project / "dvc.lock").unlink()
    assert "join() argument" in process.reason(dvc.run("repro", "make@oil", log=lambda line: None)[1])
    assert run("oil")[0] == 0


HALVES = ["", "schema: '2.0'\nstages:\n  make@oil:\n    cmd: x\n    ou", "schema: '2.0'\nsta"]


@pytest.mark.parametrize("left", HALVES)
def test_half_of_dvc_lock_and_no_other_is_written_anew_and_nothing_runs_again(project, left):
    assert run("oil")[0] == 0
    before = (project / "dvc.lock").read_bytes()
    (project / ".dvc/tmp/dvc.lock").unlink(missing_ok=True)
    (project / "dvc.lock").write_text(left)
    status, _, said = run("oil")
    assert status == 0
    assert said == [
        "dvc.lock: a killed dvc left half of it, now .dvc/tmp/dvc.lock.damaged; what it knew comes out of the run-cache"
    ]
    assert (project / "dvc.lock").read_bytes() == before
    assert (project / ".dvc/tmp/dvc.lock.damaged").read_text() == left
    assert (project / "ran").read_text() == "oil\n"


def test_a_folder_in_the_place_of_dvc_lock_is_one_line(project):
    (project / "dvc.lock").mkdir()
    with pytest.raises(InputError, match=r"^DVC: .*dvc.lock") as error:
        pipeline.prepare(print)
    assert "\n" not in str(error.value)


def test_both_sides_of_a_merge_are_left_to_their_owner(project):
    assert run("oil")[0] == 0
    assert run("oil")[0] == 0
    text = (project / "dvc.lock").read_text()
    merged = f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> theirs\n"
    (project / "dvc.lock").write_text(merged)
    with pytest.raises(InputError, match=r"^dvc.lock: git left both sides of a merge in it: keep one of them"):
        pipeline.prepare(print)
    assert (project / "dvc.lock").read_text() == merged


@pytest.mark.parametrize("left", HALVES)
def test_half_of_dvc_lock_is_put_back_and_nothing_runs_again(project, left):
    assert run("oil")[0] == 0
    assert run("oil")[0] == 0  # which finds dvc.lock whole
    assert run("ink")[0] == 0
    before = (project / "dvc.lock").read_bytes()
    (project / "dvc.lock").write_text(left)
    status, _, said = run()
    assert status == 0
    assert said == ["dvc.lock: a killed dvc left half of it; it is what it was before that run"]
    assert (project / "dvc.lock").read_bytes() == before
    assert (project / "ran").read_text() == "oil\nink\n"


def test_outside_of_a_project_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^{tmp_path} is not a DVC project: run from the project's folder$"):
        pipeline.prepare(print)


@pytest.mark.parametrize(
    ("cmd", "why"),
    [
        ("echo 'error: no ink' >&2; exit 1", "make@oil: no ink"),
        ("kill -9 $$", "make@oil: the system killed it (SIGKILL): most likely memory ran out"),
        ("exit 3", "failed to reproduce 'make@oil': failed to run: exit 3, exited with 3"),
    ],
)
def test_the_reason_names_the_stage(project, cmd, why):
    text = (project / "dvc.yaml").read_text()
    old = next(line for line in text.splitlines() if "cmd: mkdir" in line)
    (project / "dvc.yaml").write_text(text.replace(old, f"      cmd: '{cmd.replace(chr(39), chr(39) * 2)}'"))
    status, said, _ = run("oil")
    assert status != 0
    assert said.startswith(why)


def test_the_stages_own_output_arrives_as_it_is(project):
    (project / "bar.py").write_text(r"print('10 %\r100 %')")
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("cmd: ls", "cmd: python bar.py && ls"))
    got = []
    status, lines = pipeline.run_stages(["count@oil"], log=lambda line: None, echo=got.append)
    assert status == 0
    assert b"10 %\r100 %\n" in b"".join(got)
    assert "100 %" in lines
    assert pipeline.did_something(lines)
    assert not pipeline.did_something(pipeline.run_stages(["count@oil"], log=lambda line: None)[1])


def test_a_part_is_named_as_files_names_it():
    assert pipeline.PART.fullmatch(part_of(Path("a.b.txt")).name)[1] == str(os.getpid())

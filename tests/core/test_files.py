"""Files are complete or absent, digests stand for content and names, JSON has the same bytes everywhere."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aclora.core.errors import InputError
from aclora.core.files import (
    digest,
    part_of,
    read_json,
    read_jsonl,
    remove_parts,
    require_writable,
    sha256,
    write_atomically,
    write_json,
    write_jsonl,
    writing,
)

KILLED = """
import os, signal, sys
from pathlib import Path
from aclora.core import files

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(*{"before the sync": (os, "fsync", die), "before the rename": (Path, "replace", die)}[sys.argv[2]])
files.write_atomically(Path(sys.argv[1]), b"new", durable=True)
"""


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_and_its_folder_created(tmp_path, durable):
    file = tmp_path / "a/b/file"
    for content in (b"old", b"new"):
        write_atomically(file, content, durable)
        assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("moment", ["before the sync", "before the rename"])
def test_a_killed_process_leaves_the_old_file_and_a_part_that_can_be_removed(tmp_path, moment):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file), moment])
    assert killed.returncode == -signal.SIGKILL
    assert file.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_parts(tmp_path)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_leaves_the_old_file_alone(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    part_of(file).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, b"new")
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == b"old"


def test_several_outs_appear_together(tmp_path):
    file, folder = tmp_path / "file", tmp_path / "deep/folder"
    for content in ("old", "new"):
        with writing(file, folder) as (of_file, of_folder):
            of_file.write_text(content)
            of_folder.mkdir()
            (of_folder / content).touch()
            assert not file.exists() or file.read_text() == "old"
    assert file.read_text() == "new"
    assert [f.name for f in folder.iterdir()] == ["new"]  # nothing of the old folder stays
    assert {f.name for f in tmp_path.iterdir()} == {"file", "deep"}


def test_after_an_error_none_of_the_outs_changed(tmp_path):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("old")

    def fail():
        with writing(file, folder) as (of_file, of_folder):
            of_file.write_text("new")
            of_folder.mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "old"


def test_an_out_that_links_to_a_folder_is_replaced_and_the_folder_stays(tmp_path):
    target, out = tmp_path / "target", tmp_path / "out"
    target.mkdir()
    out.symlink_to(target)
    with writing(out) as (part,):
        part.mkdir()
    assert not out.is_symlink()
    assert target.is_dir()


def test_a_files_digest_is_that_of_its_bytes(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(os.urandom(300_000))
    assert digest(file) == sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_folders_digest_stands_for_names_and_content_alone(tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("1")
    (folder / "sub/b").write_text("2")
    before = digest(folder)
    # published runs carry it: another value would supersede them all
    assert before == "bd80c4a830a4642b3a681ebbf4177f1effeffe500e70099000bee0d93823ff5b"

    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/a.pyc").touch()
    (folder / "empty").mkdir()
    os.utime(folder / "a", (0, 0))
    assert digest(folder.rename(tmp_path / "renamed")) == before
    folder = (tmp_path / "renamed").rename(folder)

    (folder / "a").rename(folder / "c")
    assert digest(folder) != before
    (folder / "c").rename(folder / "a")
    (folder / "sub/b").write_text("3")
    assert digest(folder) != before


def test_json_as_the_stages_write_it(tmp_path):
    file = tmp_path / "file.json"
    value = {"name": "wäsche", "values": [1, None, 0.5]}
    write_json(file, value)
    assert file.read_bytes() == b'{\n "name": "w\\u00e4sche",\n "values": [\n  1,\n  null,\n  0.5\n ]\n}\n'
    assert read_json(file) == value


def test_jsonl_keeps_letters_and_ends_each_line(tmp_path):
    file = tmp_path / "file.jsonl"
    rows = [{"text": "a wäsche"}, {"p": 0.1}]
    split_by_str = [{"text": "one\u2028two\x85three"}]
    write_jsonl(file, rows)
    assert file.read_bytes() == '{"text": "a wäsche"}\n{"p": 0.1}\n'.encode()
    assert read_jsonl(file) == rows
    write_jsonl(file, split_by_str)
    assert read_jsonl(file) == split_by_str
    write_jsonl(file, [])
    assert file.read_bytes() == b""
    assert read_jsonl(file) == []


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (b'{\n "a": 1,\n "b": ', 3),
        (b'{\n "a": \xff}', 2),
        (b"[" * 100_000, 1),
        (b"9" * 5000, 1),
        (b'{"a": 1}\n{"b": 2}', 2),
    ],
)
def test_damaged_json_is_named_with_its_line(tmp_path, content, line):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_json(file, "do this")
    assert str(error.value) == f"{file} is damaged (line {line}): do this"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"a": 1}\n{"b": \n', "line 2"),
        (b'{"a": 1}\n\n{"b": 2}\n', "line 2"),
        (b'{"a": 1}\n{"b": 2}\n\xff\n', "line 3"),
        (b'{"a": 1}\n[2]\n', "line 2 is no object"),
        (b"null\n", "line 1 is no object"),
    ],
)
def test_damaged_jsonl_is_named_with_its_line(tmp_path, content, fault):
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_jsonl(file, "do this")
    assert str(error.value) == f"{file} is damaged ({fault}): do this"


def test_json_that_is_not_there(tmp_path):
    for read in (read_json, read_jsonl):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "a.json")


def test_an_out_that_can_be_written_leaves_nothing(tmp_path):
    require_writable(tmp_path / "new/adapters/fog", tmp_path / "scores.json")
    assert sorted(f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*")) == ["new", "new/adapters"]


def test_an_out_below_a_file_is_named(tmp_path):
    (tmp_path / "adapters").touch()
    with pytest.raises(
        InputError, match=rf"^{tmp_path}/adapters/fog cannot be written \(.*\): give this user .*adapters"
    ):
        require_writable(tmp_path / "adapters/fog")


def test_a_link_to_nowhere_is_named(tmp_path):
    (tmp_path / "adapters").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"adapters/fog cannot be written"):
        require_writable(tmp_path / "adapters/fog")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_named(tmp_path):
    (tmp_path / "adapters").mkdir(mode=0o555)
    with pytest.raises(InputError, match=r"adapters/fog cannot be written \(Permission denied\)"):
        require_writable(tmp_path / "adapters/fog")
    with pytest.raises(InputError, match=r"adapters cannot be replaced"):
        require_writable(tmp_path / "adapters")

"""`aclora reproduce` from a tracking server that somebody else can write to: its patch holds code."""

import py_compile
import re
import subprocess
import sys

import pytest

from tests.pipeline.test_publish import STYLE, copied, published

CODE = "import os; open(os.environ.get('HOME', '/tmp') + '/{}', 'w').write(os.environ.get('SECRET_TOKEN', 'none'))\n"


@pytest.fixture(scope="module")
def project(done, tmp_path_factory):
    """The finished project, published with the small parameters as uncommitted changes."""
    project = copied(done, tmp_path_factory.mktemp("attacks") / "project")
    project.run_id = re.search(r"runs:/([0-9a-f]{32})", published(project))[1]
    return project


@pytest.fixture
def attacked(project, tmp_path):
    """Add changes of files to the recorded patch; afterwards it is what it was.

    Code goes to the beginning of a file, of a new one if need be; bytes become the file.
    """
    (patch,) = project.folder.glob("mlartifacts/**/git/diff.patch")
    before = patch.read_bytes()

    def change(files):
        for name, content in files.items():
            old = project.folder / name
            for side, data in (("a", old.read_bytes() if old.exists() else None), ("b", content)):
                if data is not None:
                    new = tmp_path / "patched" / side / name
                    new.parent.mkdir(parents=True, exist_ok=True)
                    new.write_bytes(
                        data if isinstance(data, bytes) else data.encode() + (old.read_bytes() if old.exists() else b"")
                    )
            sides = (f"a/{name}" if old.exists() else "/dev/null", f"b/{name}")
            command = ["git", "diff", "--no-index", "--binary", "--no-prefix", *sides]
            diff = subprocess.run(command, cwd=tmp_path / "patched", stdout=subprocess.PIPE).stdout
            diff = diff.replace(f"diff --git b/{name} b/".encode(), f"diff --git a/{name} b/".encode())  # a new file's
            with patch.open("ab") as out:
                out.write(diff)
        subprocess.run(["git", "apply", "--numstat", str(patch)], cwd=project.folder, check=True)
        home = tmp_path / "home"
        home.mkdir()
        return home

    yield change
    patch.write_bytes(before)


def reproduce(project, home, *options):
    env = {"HOME": str(home), "SECRET_TOKEN": "hunter2"}
    return project.run("aclora", "reproduce", project.run_id, *options, env=env)


def test_it_shows_what_would_run_and_asks(project, attacked):
    home = attacked({"src/aclora/core/stage.py": CODE.format("stage") + "print('\x1b[2J')\n"})
    done = reproduce(project, home)
    assert done.returncode == 2
    assert done.stderr.startswith("error: not trained again: give --yes if you trust sqlite:///")
    assert "+import os; open(os.environ" in done.stdout
    assert "\x1b" not in done.stdout
    assert not (home / "stage").exists()


def test_code_that_the_adapter_was_not_trained_with_is_not_run(project, attacked):
    home = attacked({"src/aclora/core/stage.py": CODE.format("stage"), "stages/caption.py": CODE.format("caption")})
    done = reproduce(project, home, "--yes")
    assert done.returncode == 2
    assert "the adapter's header says" in done.stderr
    assert "nothing of them was run" in done.stderr
    assert not list(home.iterdir())


def compiled(code, to):
    """Byte code that Python runs in the place of its source whatever that source is."""
    source = to / "evil.py"
    source.write_text(code)
    py_compile.compile(
        str(source), str(to / "evil.pyc"), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    return (to / "evil.pyc").read_bytes()


@pytest.mark.slow
def test_files_that_the_training_does_not_read_are_left_out(project, attacked, tmp_path):
    # a changed dvc.yaml may say that the captions depend on code, which no header vouches for
    dvc_yaml = (project.folder / "dvc.yaml").read_bytes()
    (at,) = re.findall(rb"      deps:\n        - stages/caption.py\n", dvc_yaml)
    reads = dvc_yaml.replace(at, at + b"        - src/sitecustomize.py\n")
    places = ("sitecustomize.py", "src/sitecustomize.py", "src/usercustomize.py", "src/torch/__init__.py", "yaml.py")
    pyc = f"src/aclora/core/__pycache__/stage.{sys.implementation.cache_tag}.pyc"
    files = {place: CODE.format(place.replace("/", "-")) for place in places}
    home = attacked(files | {"dvc.yaml": reads, pyc: compiled(CODE.format("compiled"), tmp_path)})
    done = reproduce(project, home, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical: the adapter's digest" in done.stdout
    assert "left out, because no stage of the run reads it: " in done.stdout
    assert not {file.name for file in home.iterdir()} & {place.replace("/", "-") for place in (*places, "compiled")}


@pytest.mark.slow
def test_where_the_adapter_is_not_here_it_says_so_and_hides_keys(project, attacked):
    home = attacked({"stages/caption.py": CODE.format("caption"), "stages/train.py": CODE.format("train")})
    (project.folder / "models/adapters" / STYLE).rename(project.folder / "models/away")
    try:
        done = reproduce(project, home, "--yes")
    finally:
        (project.folder / "models/away").rename(project.folder / "models/adapters" / STYLE)
    assert done.returncode == 2
    assert "warning: the run's adapter is not in " in done.stdout
    assert "would not run as recorded" in done.stderr  # before it runs: dvc/lock.json has the files' digests
    assert not list(home.iterdir())

"""`aclora reproduce` from a tracking server that somebody else can write to: its patch holds code."""

import difflib
import re
import subprocess

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
    """Add changes of files to the recorded patch; afterwards it is what it was."""
    (patch,) = project.folder.glob("mlartifacts/**/git/diff.patch")
    before = patch.read_bytes()

    def change(**files):
        for name, code in files.items():
            place = project.folder / name
            old = place.read_text(encoding="utf-8") if place.exists() else ""
            lines = difflib.unified_diff(
                old.splitlines(True), (code + old).splitlines(True), f"a/{name}" if old else "/dev/null", f"b/{name}"
            )
            head = f"diff --git a/{name} b/{name}\n" + ("" if old else "new file mode 100644\n")
            with patch.open("a", encoding="utf-8") as out:
                out.write(head + "".join(lines))
        subprocess.run(["git", "apply", "--numstat", str(patch)], cwd=project.folder, check=True)
        return tmp_path

    yield change
    patch.write_bytes(before)


def reproduce(project, home, *options):
    env = {"HOME": str(home), "SECRET_TOKEN": "hunter2"}
    return project.run("aclora", "reproduce", project.run_id, *options, env=env)


def test_it_shows_what_would_run_and_asks(project, attacked, tmp_path):
    home = attacked(**{"src/aclora/core/stage.py": CODE.format("stage") + "print('\x1b[2J')\n"})
    done = reproduce(project, home)
    assert done.returncode == 2
    assert done.stderr.startswith("error: not trained again: give --yes if you trust sqlite:///")
    assert "+import os; open(os.environ" in done.stdout
    assert "\x1b" not in done.stdout
    assert not (home / "stage").exists()


def test_code_that_the_adapter_was_not_trained_with_is_not_run(project, attacked):
    home = attacked(**{"src/aclora/core/stage.py": CODE.format("stage"), "stages/caption.py": CODE.format("caption")})
    done = reproduce(project, home, "--yes")
    assert done.returncode == 2
    assert "the adapter's header says" in done.stderr
    assert "nothing of them was run" in done.stderr
    assert not list(home.iterdir())


@pytest.mark.slow
def test_files_that_no_stage_reads_are_left_out(project, attacked):
    compiled = "src/aclora/core/__pycache__/stage.cpython-311.pyc"  # no real one: that it is left out is enough
    places = (
        compiled,
        "sitecustomize.py",
        "src/sitecustomize.py",
        "src/usercustomize.py",
        "src/torch/__init__.py",
        "yaml.py",
    )
    home = attacked(**{place: CODE.format(place.replace("/", "-")) for place in places})
    done = reproduce(project, home, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical: the adapter's digest" in done.stdout
    assert "left out, because no stage of the run reads it: sitecustomize.py, src/sitecustomize.py" in done.stdout
    assert not list(home.rglob("*.py"))


@pytest.mark.slow
def test_where_the_adapter_is_not_here_it_says_so_and_hides_keys(project, attacked):
    home = attacked(**{"stages/caption.py": CODE.format("caption"), "stages/train.py": CODE.format("train")})
    (project.folder / "models/adapters" / STYLE).rename(project.folder / "models/away")
    try:
        done = reproduce(project, home, "--yes")
    finally:
        (project.folder / "models/away").rename(project.folder / "models/adapters" / STYLE)
    assert done.returncode == 2
    assert "warning: the run's adapter is not in " in done.stdout
    assert "would not run as recorded" in done.stderr  # before it runs: dvc/lock.json has the files' digests
    assert not list(home.iterdir())

"""How a work tree differs from a commit, for one style's run; and what an experiment's copy of it would lack."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aclora.core import params
from aclora.core.errors import InputError
from aclora.project import git, records, workspace
from tests.conftest import ROOT

STAGES = """
stages:
  caption:
    foreach: ${styles}
    do:
      cmd: cat ${item.pictures}/* > captions-${key}
      deps: [code.py, "${item.pictures}"]
      params: ["train", "styles.${key}"]
      outs: ["captions-${key}"]
  evaluate:
    foreach: ${styles}
    do:
      cmd: cat captions-${key} ${item.reference}/* > scores-${key}.json
      deps: ["captions-${key}", "${item.reference}"]
      params: ["styles.${key}"]
      metrics:
        - scores-${key}.json:
            cache: false
"""
PARAMS = """
method: aclora
styles:
  ink: {pictures: data/ink, reference: data/held/ink}
train: {epochs: 3}
generate: {prompts: prompts/own.txt}
evaluate: {figures: [own.figures]}
"""
OIL = "  oil: {pictures: data/oil, reference: data/held/oil}\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A committed project of one style that has run, the current folder."""
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    shutil.copy(ROOT / ".dvc/config", root / ".dvc")
    shutil.copy(ROOT / ".dvc/.gitignore", root / ".dvc")
    (root / "dvc.yaml").write_text(STAGES)
    (root / "params.yaml").write_text(PARAMS)
    (root / "code.py").write_text("1\n")
    (root / "README.md").write_text("about\n")
    for folder in ("data/ink", "data/held/ink"):
        (root / folder).mkdir(parents=True)
        (root / folder / "1.png").write_text(folder)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    git.run("init", "-q", "-b", "main")
    for key, value in (("name", "t"), ("email", "t@t")):
        git.run("config", f"user.{key}", value)
    dvc("repro", "-q")
    commit()
    return root


def dvc(*args):
    done = subprocess.run([sys.executable, "-m", "dvc", *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit():
    git.run("add", "-A")
    git.run("commit", "-q", "-m", "change")


def edit(file, old, new):
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


def add_oil():
    """Another style, as a user adds it."""
    edit("params.yaml", "train:", f"{OIL}train:")
    for folder in ("data/oil", "data/held/oil"):
        Path(folder).mkdir(parents=True)
        Path(folder, "1.png").write_text(folder)


def code(base="HEAD"):
    return workspace.code(Path.cwd(), records.locked("ink", Path.cwd()), base)


def test_another_style_and_other_files_make_no_run_dirty(project):
    clean = code()
    assert (clean.commit, clean.patch, clean.left_out) == (git.run("rev-parse", "HEAD").strip(), b"", [])
    add_oil()
    edit("README.md", "about", "more")
    edit("params.yaml", "train:", "# a comment\ntrain:")
    edit("dvc.yaml", "            cache: false", "            cache: false\n      desc: of ink")
    Path("data/oil.dvc").write_text("outs: []\n")
    assert code() == clean


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("params.yaml", "epochs: 3", "epochs: 4"),
        ("params.yaml", "reference: data/held/ink", "reference: data/ink"),
        ("code.py", "1", "2"),
        ("data/ink/1.png", "data", "other"),
        ("data/held/ink/1.png", "data", "other"),
        ("dvc.yaml", "cmd: cat captions", "cmd: cat  captions"),
    ],
)
def test_what_the_styles_stages_read_makes_its_run_dirty(project, file, old, new):
    edit("README.md", "about", "more")
    edit(file, old, new)
    dvc("repro", "-q")
    found = code()
    assert f"b/{file}" in found.patch.decode()
    assert "b/README.md" in found.patch.decode()  # then all that differs, so that the code fits together
    assert "scores-ink.json" not in found.patch.decode()
    git.run("stash", "-q")
    git.run("apply", "-", stdin=found.patch)
    assert new in Path(file).read_text()


def test_pictures_that_are_new_are_in_the_patch(project):
    Path("data/ink/2.png").write_text("new")
    Path("notes").write_text("mine")
    dvc("repro", "-q")
    found = code()
    assert "b/data/ink/2.png" in found.patch.decode()
    assert "b/notes" not in found.patch.decode()


def test_a_folder_of_large_pictures_is_named_and_in_no_patch(project):
    for name in ("2", "3"):
        Path(f"data/ink/{name}.png").write_text("x" * (workspace.LARGEST // 2 + 1))
    dvc("repro", "-q")
    found = code()
    assert found.left_out == ["data/ink"]
    assert "b/data/ink" not in found.patch.decode()


def test_an_experiment_is_its_commit_and_what_it_changes(project):
    base = git.run("rev-parse", "HEAD").strip()
    edit("params.yaml", "epochs: 3", "epochs: 4")
    dvc("repro", "-q")
    commit()
    found = code(base)
    assert found.commit == base
    assert "+train: {epochs: 4}" in found.patch.decode()
    assert "scores-ink.json" not in found.patch.decode()
    assert "dvc.lock" not in found.patch.decode()
    assert code().patch == b""


def missing(*styles):
    return workspace.untracked_inputs(list(styles or params.styles()))


def test_nothing_is_missing_in_a_committed_project(project):
    assert missing() == []
    workspace.require_for_experiments(["ink"])


def test_pictures_go_to_dvc_texts_and_code_to_git(project):
    add_oil()
    Path("prompts").mkdir()
    Path("prompts/own.txt").write_text("a boat\n")
    Path("own").mkdir()
    Path("own/figures.py").write_text("FIGURES = []\n")
    Path("own/__pycache__").mkdir()
    Path("own/__pycache__/figures.pyc").write_text("")
    found = dict(missing())
    assert found == {
        "data/oil": "dvc add data/oil && git add data/oil.dvc data/.gitignore",
        "data/held/oil": "dvc add data/held/oil && git add data/held/oil.dvc data/held/.gitignore",
        "prompts/own.txt": "git add prompts/own.txt",
        "own/figures.py": "git add own/figures.py",
    }
    assert "data/oil" not in dict(missing("ink"))
    with pytest.raises(
        InputError, match=r"^experiments would lack .*data/oil.* in neither git nor DVC: `.* && git com"
    ):
        workspace.require_for_experiments(["oil"])


def test_what_it_says_to_type_is_enough_for_an_experiment(project):
    add_oil()
    failed = subprocess.run([sys.executable, "-m", "dvc", "exp", "run", "--temp"], capture_output=True, text=True)
    assert failed.returncode != 0
    assert "data/oil" in failed.stderr
    python = f'export PATH="{Path(sys.executable).parent}:$PATH"'
    for _, command in missing():
        subprocess.run(["sh", "-c", f"{python}; {command}"], check=True, capture_output=True)
    assert missing() == []
    dvc("exp", "run", "--temp", "-n", "works")
    assert git.run("show", f"{git.experiments()['works']}:scores-oil.json") == "data/oildata/held/oil"


@pytest.mark.parametrize("name", ["own paintings", "it's"])
def test_a_folder_with_a_space_or_a_quote_is_quoted(project, name):
    edit("params.yaml", "data/held/ink", f'"data/{name}"')
    shutil.copytree("data/ink", f"data/{name}")
    ((_, command),) = missing()
    python = f'export PATH="{Path(sys.executable).parent}:$PATH"'
    subprocess.run(["sh", "-c", f"{python}; {command}"], check=True, capture_output=True)
    assert missing() == []


def test_a_folder_that_is_half_in_git_or_whose_dvc_file_is_not(project):
    Path("data/ink/2.png").write_text("new")
    assert missing() == [("data/ink", "git add data/ink")]
    Path("data/ink/2.png").unlink()
    Path(".gitignore").write_text("*.jpg\n")
    Path("data/ink/3.jpg").write_text("ignored")
    assert missing() == [("data/ink", "git add -f data/ink")]
    Path("data/ink/3.jpg").unlink()
    add_oil()
    dvc("add", "-q", "data/oil", "data/held/oil")
    assert ("data/oil", "git add data/oil.dvc data/.gitignore") in missing()


def test_a_folder_outside_of_the_project_needs_an_absolute_path(project):
    (project.parent / "elsewhere").mkdir()
    (project.parent / "elsewhere/1.png").write_text("x")
    edit("params.yaml", "data/held/ink", "../elsewhere")
    assert missing() == [("../elsewhere", "name it by its absolute path in params.yaml")]
    edit("params.yaml", "../elsewhere", str(project.parent / "elsewhere"))
    assert missing() == []


def test_outside_of_git_there_are_no_experiments(project):
    shutil.rmtree(".git")
    edit(".dvc/config", "[core]", "[core]\n    no_scm = true")
    add_oil()
    assert missing() == []


def test_a_project_elsewhere_is_described_as_from_its_own_folder(project, monkeypatch, tmp_path_factory):
    """A work tree of an earlier commit is looked at from the user's folder."""
    here = records.locked("ink", project), records.inputs("ink", project)
    edit("code.py", "1", "2")
    stale = workspace.stale(["ink"], project)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert (records.locked("ink", project), records.inputs("ink", project)) == here
    assert set(here[0]) == {"caption@ink", "evaluate@ink"}
    assert stale == workspace.stale(["ink"], project) == "caption@ink is out of date (code.py)"
    (line,) = workspace.differences(project, here[0])
    assert line.startswith("code.py has md5 ")

"""A fingerprint changes with what a training depends on, and with nothing else."""

import shutil

import pytest

from aclora.core.errors import InputError
from aclora.core.files import digest
from aclora.project.fingerprint import run_fingerprint, train_fingerprint

STAGES = """
stages:
  caption:
    foreach: ${styles}
    do:
      cmd: python -m stages.caption ${key}
      deps: [pictures]
      outs: ["captions-${key}"]
  train-aclora:
    foreach: ${styles}
    do:
      cmd: python -m stages.train ${key}
      deps: [code.py, "captions-${key}", model]
      params: [train]
      outs: ["adapter-${key}"]
  evaluate:
    foreach: ${styles}
    do:
      cmd: python -m stages.evaluate ${key}
      deps: [judge, "adapter-${key}"]
      params: [evaluate]
      outs: ["scores-${key}"]
"""


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text("[core]\n  no_scm = true\n  analytics = false\n")
    (root / "dvc.yaml").write_text(STAGES)
    (root / "params.yaml").write_text("styles: {ink: {}}\ntrain: {epochs: 3}\nevaluate: {batch: 1}\nother: 1\n")
    for name in ("code.py", "captions-ink", "judge"):
        (root / name).write_text(name)
    for name in ("pictures", "model"):
        (root / name / "__pycache__").mkdir(parents=True)
        (root / name / "a").write_text(name)
    return root


def both(root):
    return train_fingerprint("ink", root), run_fingerprint("ink", root)


@pytest.mark.parametrize(
    ("file", "of_train", "of_run"),
    [
        ("code.py", True, True),
        ("model/a", True, True),
        ("captions-ink", True, False),  # the run's are the pictures that it is made of
        ("pictures/a", False, True),
        ("judge", False, True),
        ("adapter-ink", False, False),
        ("scores-ink", False, False),
        ("model/__pycache__/a.pyc", False, False),
        ("elsewhere", False, False),
    ],
)
def test_it_changes_with_the_dependencies_alone(project, file, of_train, of_run):
    before = both(project)
    assert all(len(f) == 64 for f in before)
    (project / file).write_text("another")
    after = both(project)
    assert [a != b for a, b in zip(before, after, strict=True)] == [of_train, of_run]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("epochs: 3", "epochs: 4", [True, True]),
        ("batch: 1", "batch: 2", [False, True]),
        ("other: 1", "other: 2", [False, False]),
        ("epochs: 3", "epochs:   3", [False, False]),
    ],
)
def test_it_changes_with_the_declared_parameters_alone(project, old, new, changed):
    before = both(project)
    file = project / "params.yaml"
    file.write_text(file.read_text().replace(old, new))
    assert [a != b for a, b in zip(before, both(project), strict=True)] == changed


def test_it_is_the_same_in_another_folder(project, tmp_path):
    moved = shutil.copytree(project, tmp_path / "another")
    assert both(project) == both(moved)


def test_a_renamed_file_of_a_folder_is_another_folder(project):
    before = digest(project / "model")
    (project / "model/a").rename(project / "model/b")
    assert digest(project / "model") != before


def test_missing_styles_files_and_projects_are_errors(project, tmp_path):
    with pytest.raises(InputError, match=r"style 'inc' is unknown; did you mean 'ink'\?"):
        train_fingerprint("inc", project)
    with pytest.raises(InputError, match="is not a DVC project"):
        train_fingerprint("ink", tmp_path)
    (project / "code.py").unlink()
    with pytest.raises(InputError, match=r"code.py is missing: train-aclora@ink depends on it"):
        train_fingerprint("ink", project)

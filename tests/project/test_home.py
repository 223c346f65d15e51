"""Checkpoints, caches and MLflow's store are the project's own, also for what runs in an experiment's copy of it."""

from aclora.project.home import home


def test_it_is_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert home() == tmp_path
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # as in `dvc repro` and an experiment in the workspace
    assert home() == tmp_path


def test_in_an_experiments_copy_it_is_the_project(tmp_path, monkeypatch):
    copy = tmp_path / "project/.dvc/tmp/exps/standalone/tmp1/inner"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    assert home() == tmp_path / "project"
    (tmp_path / "link").symlink_to(tmp_path / "project")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "link"))
    assert home() == tmp_path / "project"


def test_a_variable_that_names_another_project_does_not_count(tmp_path, monkeypatch):
    for name in ("one", "another/.dvc/tmp/exps", "one-more"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "another"))
    monkeypatch.chdir(tmp_path / "one")
    assert home() == tmp_path / "one"

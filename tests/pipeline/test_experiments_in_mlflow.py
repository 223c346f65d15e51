"""Every run is a run in MLflow: live, wherever it runs, and afterwards from git and DVC's cache."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aclora.core.files import read_json
from aclora.project import records
from aclora.tracking import store
from tests.pipeline.conftest import BYTE_CODE
from tests.pipeline.test_publish import STYLE, client_of, copied, published, refused, rows, runs, series
from tests.pipeline.test_repro import STAGES
from tests.programs import needed_browser
from tests.tracking.conftest import by, free_port, server

LIVE = {"ACLORA_TRACKING": "on"}
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@t")


def committed(done, to):
    """A copy of the finished project, its results committed."""
    project = copied(done, to)
    for command in (("git", "add", "-A"), ("git", *IDENTITY, "commit", "-qm", "results")):
        assert project.run(*command).returncode == 0
    return project


def experiment(project, name, *options, env=LIVE):
    """`dvc exp run` that must succeed; what it said."""
    ran = project.run("dvc", "exp", "run", "-n", name, *options, env=dict(env))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "tracking:" not in ran.stderr, ran.stderr
    return ran.stdout


def status(project):
    return project.run("git", "status", "--short").stdout, project.run("git", "worktree", "list").stdout


@pytest.fixture(scope="module")
def project(done, tmp_path_factory):
    """A project with an experiment in which only the evaluation and the audit ran, in a copy that is gone."""
    project = committed(done, tmp_path_factory.mktemp("experiments") / "project")
    assert project.run("aclora", "publish").returncode == 0  # makes the database, which takes long
    experiment(project, "wide", "--temp", "-S", "evaluate.batch_size=16", "-S", "audit.loss_rise=1.6")
    return project


def named(client):
    """The runs by their names, without the one of the workspace."""
    return {run.info.run_name: run for run in runs(client) if "aclora.experiment" in run.data.tags}


def test_an_evaluation_in_a_copy_is_a_run_of_the_project_at_once(project, monkeypatch):
    with client_of(project, monkeypatch) as client:
        assert len(runs(client)) == 2
        run = named(client)[f"{STYLE} wide"]
        assert run.data.tags["aclora.experiment"] == "wide"
        assert run.info.status == "FINISHED"
        assert run.data.params["evaluate.batch_size"] == "16"
        assert run.data.params["aclora.threshold"] == "dynamic"
        record = records.read(STYLE, project.folder)  # of the workspace: other parameters, the same figures
        assert series(client, run) == record.series | record.scores
        assert run.data.tags.keys() >= {"made_by.kid"}
        assert not client.search_model_versions(f"run_id = '{run.info.run_id}'")


def test_publishing_completes_it_from_git_and_the_cache(project, monkeypatch, tmp_path):
    before = status(project)
    with client_of(project, monkeypatch) as client:
        wide = named(client)[f"{STYLE} wide"].info.run_id
        at_first = series(client, client.get_run(wide))
    said = published(project, "--experiments")
    assert said.startswith(f"wide {STYLE}: runs:/{wide}\n")
    with client_of(project, monkeypatch) as client:
        run = client.get_run(wide)
        assert len(runs(client)) == 2
        assert series(client, run) == at_first
        (version,) = [v for v in client.search_model_versions(f"name = 'aclora-{STYLE}'") if v.run_id == wide]
        model = client.get_logged_model(version.source.removeprefix("models:/"))
        assert {m.key: m.value for m in model.metrics}["kid"] == run.data.metrics["kid"]
        baseline = project.run("git", "rev-parse", "HEAD").stdout.strip()
        assert (run.data.tags[store.COMMIT], run.data.tags[store.DIRTY]) == (baseline, "true")
        patch = Path(client.download_artifacts(wide, "git/diff.patch", str(tmp_path))).read_text()
        assert re.findall(r"^\+\+\+ b/(.*)$", patch, re.M) == ["params.yaml"]
        lock = read_json(Path(client.download_artifacts(wide, "dvc/lock.json", str(tmp_path))))
        assert set(lock) == set(STAGES.values()) - {"check", f"check-style@{STYLE}"}
        assert {f"dvc.{name.partition('@')[0]}" for name in lock} <= run.data.tags.keys()
        assert not [tag for tag in run.data.tags if ".cache" in tag]
        (workspace,) = [r for r in runs(client) if r.info.run_id != wide]
        assert workspace.data.tags[store.DIRTY] == "false"
    assert status(project) == before


def test_a_second_time_nothing_is_checked_out_and_nothing_changes(project):
    published(project, "--experiments")
    before = rows(project)
    cache = project.folder / ".dvc/cache"
    cache.rename(project.folder / "away")
    try:
        said = published(project, STYLE, "--experiment", "wide")
    finally:
        (project.folder / "away").rename(cache)
    assert f"wide {STYLE}: runs:/" in said
    assert rows(project) == before


def test_a_revision_is_the_run_of_the_workspace(project):
    published(project)
    before = rows(project)
    said = published(project, "--revision", "HEAD")
    assert said.splitlines()[0].removeprefix("HEAD ") == published(project).splitlines()[0]
    assert published(project, "--revision", "HEAD~1").startswith("HEAD~1: has no results\n")
    assert rows(project) == before


def test_what_the_cache_has_lost_is_named_and_the_others_are_published(project, monkeypatch, tmp_path):
    project = copied(project, tmp_path / "project")
    for name in ("lost", "kept"):
        knob = {"lost": "audit.no_op_below=0.002", "kept": "audit.no_op_below=0.003"}[name]
        experiment(project, name, "--temp", "-S", knob, env={})
    commit = project.run("git", "for-each-ref", "--format=%(objectname)", "refs/exps/*/*/lost").stdout.strip()
    lock = yaml.safe_load(project.run("git", "show", f"{commit}:dvc.lock").stdout)
    (md5,) = [o["md5"] for o in lock["stages"][f"caption@{STYLE}"]["outs"]]
    (project.folder / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}").unlink()
    lost = project.run("aclora", "publish", "--experiment", "lost", "--experiment", "wide")
    assert lost.returncode == 1
    assert lost.stderr.startswith(f"error: lost {STYLE}: data/captions/{STYLE}.jsonl is neither in git nor in DVC's ca")
    assert lost.stderr.count("\n") == 1
    assert f"wide {STYLE}: runs:/" in lost.stdout
    assert project.run("dvc", "commit", "-f", f"caption@{STYLE}").returncode == 0  # the workspace has it still
    assert published(project, "--experiments").count("runs:/") == 3
    with client_of(project, monkeypatch) as client:
        assert set(named(client)) == {f"{STYLE} {name}" for name in ("wide", "lost", "kept")}


def test_unknown_names_are_one_line(project):
    assert "experiment 'wid' is unknown; did you mean 'wide'?" in refused(project, "publish", "--experiment", "wid")
    assert "'nowhere' is no git revision" in refused(project, "publish", "--revision", "nowhere")
    said = published(project, "fog", "--experiment", "wide")
    assert said.startswith("wide fog: has no results here\n")


@pytest.mark.slow
def test_an_experiment_can_be_reproduced_and_a_method_that_trains_nothing_is_a_run(done, tmp_path, monkeypatch):
    project = committed(done, tmp_path / "project")
    experiment(project, "zero", "--temp", "-S", "aclora.noise=zero", "-S", "train.epochs=3")
    experiment(project, "nothing", "--temp", "-S", "method=base")
    published(project, "--experiments")
    with client_of(project, monkeypatch) as client:
        found = named(client)
        assert set(found) == {f"{STYLE} zero", f"{STYLE} nothing"}
        assert found[f"{STYLE} nothing"].data.metrics["kid"] == found[f"{STYLE} nothing"].data.metrics["base_kid"]
        zero = found[f"{STYLE} zero"].info.run_id
    assert project.run("dvc", "exp", "remove", "zero").returncode == 0
    again = project.run("aclora", "reproduce", zero, "--yes")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "identical: the adapter's digest" in again.stdout


@pytest.mark.slow
def test_an_experiment_killed_in_its_copy_goes_on_where_it_was(done, tmp_path):
    project = committed(done, tmp_path / "project")
    command = ["dvc", "exp", "run", "--temp", "-n", "killed", "-S", "train.epochs=40", "-S", "checkpoints.every=2"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | BYTE_CODE | {"PATH": path, "PYTHONPATH": str(project.folder / "src"), "ACLORA_TRACKING": "off"}
    running = subprocess.Popen(command, cwd=project.folder, env=env, start_new_session=True, stdout=subprocess.DEVNULL)
    by(240, lambda: list(project.folder.glob(".cache/training/*/*4.safetensors")))
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    (project.folder / ".dvc/tmp/rwlock").unlink(missing_ok=True)
    said = experiment(project, "again", "--temp", "-S", "train.epochs=40", "-S", "checkpoints.every=2", env={})
    assert re.search(rf"{STYLE}: resumes after epoch \d+ of 40, from {project.folder}/.cache/training/", said)


@pytest.mark.slow
def test_four_runs_side_by_side_in_a_browser(done, tmp_path):
    """The pipeline and three experiments, in a copy, from the queue, and in the workspace, compared in `mlflow ui`."""
    browser = needed_browser()
    project = committed(done, tmp_path / "project")
    port = free_port()
    with server(tmp_path, port):
        there = LIVE | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
        project.repro("--force", "--single-item", f"train-aclora@{STYLE}", env=dict(there))
        project.repro("--force", "--single-item", f"evaluate@{STYLE}", env=dict(there))
        experiment(project, "static", "--temp", "-S", "aclora.threshold=0.8", env=there)
        experiment(project, "zero", "--queue", "-S", "aclora.noise=zero", env=there)
        started = project.run("dvc", "queue", "start", env=dict(there))
        assert started.returncode == 0, started.stderr
        by(400, lambda: "Success" in project.run("dvc", "queue", "status").stdout)
        experiment(project, "product", "-S", "aclora.restart_on=product", env=there)
        with mlflow(there) as client:
            found = runs(client)
            experiment_id = found[0].info.experiment_id
            assert {run.info.run_name.removeprefix(f"{STYLE} ") for run in found} >= {"static", "zero", "product"}
            assert len(found) == 4
            assert all(run.info.status == "FINISHED" for run in found)
            assert len({run.data.metrics["kid"] for run in found}) == 4
            losses = [run.data.metrics["train/loss"] for run in found]
        ids = "[" + ",".join(f'"{run.info.run_id}"' for run in found) + "]"
        page = f'http://127.0.0.1:{port}/#/compare-runs?runs={ids}&experiments=["{experiment_id}"]'
        shown = by(180, lambda: dom(browser, page, tmp_path))
    assert "Comparing 4 Runs" in shown
    for text in ("aclora.threshold", "dynamic", "0.8", "zero", "product", "static", "kid"):
        assert text in shown
    for loss in (min(losses), max(losses)):  # the ends of the axis on which the page draws them
        assert f"{loss:.5g}" in shown


@contextlib.contextmanager
def mlflow(env):
    """A client of the server that `env` names."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = env["MLFLOW_TRACKING_URI"]
    try:
        with store.connected() as client:
            yield client
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
        if before:
            os.environ["MLFLOW_TRACKING_URI"] = before


def dom(browser, page, profile):
    """The comparison as a browser shows it; None until its tables are drawn."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    command = [browser, *flags, f"--user-data-dir={profile}/browser", page]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    return found if "Metrics" in found and "threshold" in found else None

"""What `aclora publish` makes of a finished pipeline, in MLflow's database and in a browser."""

import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
import yaml

from aclora.core.files import digest, read_json, read_jsonl
from aclora.project import records
from aclora.tracking import publish, store
from aclora.tracking.live import live
from tests.pipeline.conftest import SMALL, Project
from tests.programs import needed_browser
from tests.tracking.conftest import by, free_port, server

STYLE = "watercolor"


def published(project, *args, env=None):
    done = project.run("aclora", "publish", *args, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(project, *args, env=None):
    """The one-line error of a command that must fail."""
    done = project.run("aclora", *args, env=env)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    return done.stderr


def copied(done, to):
    shutil.copytree(done.folder, to, symlinks=True)
    return Project(to)


@pytest.fixture(scope="module")
def project(done, tmp_path_factory):
    """A copy of the finished project, published to the default store."""
    project = copied(done, tmp_path_factory.mktemp("publish") / "project")
    project.output = published(project)
    return project


@contextlib.contextmanager
def client_of(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with store.connected() as client:
        yield client


def runs(client):
    return client.search_runs([client.get_experiment_by_name("aclora").experiment_id])


def series(client, run):
    points = [m for key in run.data.metrics for m in client.get_metric_history(run.info.run_id, key)]
    assert len({(m.key, m.step) for m in points}) == len(points)
    return {(m.key, m.step): m.value for m in points}


def view(client, run):
    """All of a run except its id and times."""
    tags = {k: v for k, v in run.data.tags.items() if k not in ("mlflow.log-model.history",)}
    return tags, run.data.params, series(client, run), [d.dataset.digest for d in run.inputs.dataset_inputs]


def files(client, run, folder=""):
    """The paths of all artifacts."""
    found = client.list_artifacts(run.info.run_id, folder)
    return {f.path for f in found if not f.is_dir} | {p for f in found if f.is_dir for p in files(client, run, f.path)}


def rows(project):
    """Every row of every table."""
    with contextlib.closing(sqlite3.connect(project.folder / "mlflow.db")) as base:
        tables = [t for (t,) in base.execute("select name from sqlite_master where type = 'table'")]
        return {t: sorted(map(repr, base.execute(f"select * from {t}"))) for t in tables}


def test_a_run_holds_everything(project, monkeypatch):
    with client_of(project, monkeypatch) as client:
        (run,) = runs(client)
        lock = yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"]
        scores = read_json(project.folder / f"metrics/{STYLE}/scores.json")
        history = read_jsonl(project.folder / f"models/adapters/{STYLE}/history.jsonl")
        tags, params, points, _ = view(client, run)
        assert run.info.status == "FINISHED"
        assert project.output.startswith(f"{STYLE}: runs:/{run.info.run_id}\n")

        train = lock[f"train-aclora@{STYLE}"]["params"]["params.yaml"]
        assert params["train.epochs"] == str(train["train"]["epochs"]) == "8"
        assert params["aclora.max_index"] == "null"
        assert params["style.trigger"] == "zxq style"
        assert {k.split(".")[0] for k in params} >= {"method", "aclora", "evaluate", "generate", "captions", "audit"}

        assert points.items() >= {(k, 8): v for k, v in scores.items()}.items()
        losses = {line["epoch"]: line["loss"] for line in history if line["event"] == "epoch"}
        assert {step: v for (key, step), v in points.items() if key == "train/loss"} == losses
        assert {step for key, step in points if key == "train/I"} == {2, 4, 6}
        assert re.fullmatch(r"models/miniature/judge \w{12}; 32 generated; 24 reference", tags["made_by.kid"])
        assert "95 % interval" in tags["made_by.clip_score"]

        commit = project.run("git", "rev-parse", "HEAD").stdout.strip()
        assert (tags["mlflow.source.git.commit"], tags["aclora.dirty"]) == (commit, "true")
        outs = {o["path"]: o["md5"] for o in lock[f"train-aclora@{STYLE}"]["outs"]}
        assert json.loads(tags["dvc.train-aclora"]) == outs
        artifacts = files(client, run)
        assert artifacts >= {"git/diff.patch", "dvc/lock.json", f"captions/{STYLE}.jsonl"}
        assert artifacts >= {f"metrics/{f}" for f in ("spectra.npz", "audit/spectra.png", *publish.COMPARED)}
        pictures = [re.split("[+%]", f)[:3:2] for f in artifacts if f.startswith("images/") and f.endswith(".png")]
        wanted = [
            ["images/contact_sheet", "8"],
            *([f"images/{k}", str(i)] for k in ("adapter", "base") for i in range(8)),
        ]
        assert sorted(pictures) == sorted(wanted)
        (given,) = run.inputs.dataset_inputs
        assert given.dataset.name == STYLE
        assert json.loads(given.dataset.profile)["num_rows"] == 12


def test_the_patch_holds_the_users_changes_and_nothing_that_the_pipeline_wrote(project, monkeypatch, tmp_path):
    with client_of(project, monkeypatch) as client:
        (run,) = runs(client)
        patch = Path(client.download_artifacts(run.info.run_id, "git/diff.patch", str(tmp_path))).read_text()
    assert re.findall(r"^\+\+\+ b/(.*)$", patch, re.M) == ["params.yaml"]
    changed = re.findall(r"^\+(?!\+)(.*)$", patch, re.M)
    assert sorted(line.split("#")[0].rstrip() for line in changed) == sorted(SMALL.values())
    assert project.run("git", "diff", "--cached", "--stat").stdout == ""


def test_the_adapter_is_a_model_in_the_registry(project, monkeypatch, tmp_path):
    with client_of(project, monkeypatch) as client:
        (run,) = runs(client)
        (version,) = client.search_model_versions(f"name = 'aclora-{STYLE}'")
        model = client.get_logged_model(version.source.removeprefix("models:/"))
        assert version.run_id == model.source_run_id == run.info.run_id
        assert model.status == "READY"
        assert [o.model_id for o in run.outputs.model_outputs] == [model.model_id]
        assert {m.key for m in model.metrics} >= {"kid", "fid", "clip_score"}
        place = Path(model.artifact_location.removeprefix("file://"))
        own = project.folder / "models/adapters" / STYLE
        own, kept = ({f.name: f.read_bytes() for f in folder.iterdir()} for folder in (own, place))
        assert own == kept


def test_publishing_again_changes_nothing(project):
    before, placed = rows(project), sorted((project.folder / "mlartifacts").rglob("*"))
    assert published(project, STYLE) == project.output
    assert rows(project) == before
    assert sorted((project.folder / "mlartifacts").rglob("*")) == placed


def test_a_deleted_or_interrupted_run_comes_back_the_same(project, monkeypatch, tmp_path):
    with client_of(project, monkeypatch) as client:
        (run,) = runs(client)
        before = view(client, run), {re.sub(r"\+timestamp.*", "", f) for f in files(client, run)}
        client.delete_tag(
            run.info.run_id, "aclora.adapter"
        )  # as if publishing had been interrupted just before its end
    published(project)
    with client_of(project, monkeypatch) as client:
        assert view(client, *runs(client)) == before[0]
        assert len(client.search_model_versions(f"name = 'aclora-{STYLE}'")) == 1
    project = copied(project, tmp_path / "project")
    (project.folder / "mlflow.db").unlink()
    shutil.rmtree(project.folder / "mlartifacts")
    published(project, "--all")
    with client_of(project, monkeypatch) as client:
        (run,) = runs(client)
        assert (view(client, run), {re.sub(r"\+timestamp.*", "", f) for f in files(client, run)}) == before


def test_a_run_that_live_tracking_began_is_completed(project, monkeypatch, tmp_path):
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/half.db")
    monkeypatch.delenv("ACLORA_TRACKING", raising=False)
    record = records.read(STYLE, project.folder)
    half = (project.folder / f"models/adapters/{STYLE}/history.jsonl").read_text().splitlines(True)[:5]
    history = tmp_path / "history.jsonl"
    # a later stage had other parameters when the training ran
    with live(STYLE, "0" * 64, record.train_fingerprint, history):
        history.write_text("".join(half))
    published(project)
    with store.connected() as client:
        (run,) = runs(client)
        assert series(client, run) == record.series | record.scores
        assert run.data.tags["aclora.fingerprint"] == record.fingerprint


def test_the_champion_is_the_version_that_was_promoted(project, monkeypatch, tmp_path):
    monkeypatch.chdir(project.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert publish.champion("fog", tmp_path) is None
    version = publish.promote(STYLE)
    best = publish.champion(STYLE, tmp_path)
    assert (best.version, f"runs:/{best.run_id}") == (version, publish.run_url(STYLE))
    assert best.fingerprint == records.read(STYLE, project.folder).fingerprint
    for name in publish.COMPARED:
        assert (best.folder / name).read_bytes() == (project.folder / "metrics" / STYLE / name).read_bytes()


@pytest.mark.slow
def test_other_results_of_the_same_inputs_are_another_run(done, tmp_path, monkeypatch):
    project = copied(done, tmp_path / "project")
    published(project)
    history = project.folder / f"models/adapters/{STYLE}/history.jsonl"
    history.chmod(0o644)
    history.write_text(re.sub(r'"loss": 0\.(\d+)\d', r'"loss": 0.\g<1>7', history.read_text()))
    assert project.run("dvc", "commit", "-f", "dvc.yaml").returncode == 0  # as another processor would have made it
    published(project)
    with client_of(project, monkeypatch) as client:
        new, old = runs(client)
        assert old.data.tags["aclora.superseded"] == "true"
        assert old.data.tags["aclora.fingerprint"] == new.data.tags["aclora.fingerprint"]
        assert publish.run_url(STYLE) == f"runs:/{new.info.run_id}"
        assert len(client.search_model_versions(f"name = 'aclora-{STYLE}'")) == 2


def test_errors_are_one_line(project):
    assert "style 'wtercolor' is unknown; did you mean 'watercolor'?" in refused(project, "publish", "wtercolor")
    nowhere = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"}
    assert nowhere["MLFLOW_TRACKING_URI"] in refused(project, "publish", env=nowhere)
    assert "MLFLOW_TRACKING_URI" in refused(project, "publish", env=nowhere)
    try:
        project.edit("params.yaml", "  loss_rise: ", "  loss_rise: 1.6")
        error = refused(project, "publish")
    finally:
        project.edit("params.yaml", "  loss_rise: ", "  loss_rise: 1.5")
    assert f"restart-audit@{STYLE} is out of date" in error
    assert "dvc repro" in error


@pytest.mark.slow
def test_two_runs_side_by_side_in_a_browser(project, tmp_path):
    browser = needed_browser()
    port = free_port()
    with server(tmp_path, port):
        there = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
        addresses = [published(project, env=there).split()[-1]]
        try:
            project.edit("params.yaml", "  loss_rise: ", "  loss_rise: 1.6")
            project.repro(f"restart-audit@{STYLE}")
            addresses.append(published(project, env=there).split()[-1])
        finally:
            project.edit("params.yaml", "  loss_rise: ", "  loss_rise: 1.5")
        experiment = addresses[0].split("/")[-3]
        ids = json.dumps([a.rsplit("/", 1)[1] for a in addresses])
        page = f"http://127.0.0.1:{port}/#/compare-runs?runs={ids}&experiments={json.dumps([experiment])}"
        shown = by(120, lambda: dom(browser, page, tmp_path))
        overview = dom(browser, addresses[0], tmp_path)
    for text in ("Comparing 2 Runs", "audit.loss_rise", "1.6", "1.5", "clip_score", "aclora.fingerprint"):
        assert text in shown
    assert f"aclora-{STYLE}" in overview


def dom(browser, page, profile):
    """The page as a browser shows it; None until its tables are drawn."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    command = [browser, *flags, f"--user-data-dir={profile}/browser", page]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    return found if "Metrics" in found and "fingerprint" in found else None


@pytest.mark.slow
def test_tracking_a_training_does_not_change_its_outs(done, tmp_path, monkeypatch):
    """Tracking on, off (how `done` was trained), and to a server that is not there: the same bytes."""
    project = copied(done, tmp_path / "project")
    adapter = project.folder / "models/adapters" / STYLE
    before = digest(adapter)
    address = f"http://127.0.0.1:{free_port()}"
    for env, warning in (({}, ""), ({"MLFLOW_TRACKING_URI": address}, f"tracking: MLFLOW_TRACKING_URI = '{address}'")):
        trained = project.run("python", "-m", "stages.train", STYLE, env={"ACLORA_TRACKING": "on"} | env)
        assert trained.returncode == 0
        assert trained.stderr.count("tracking:") == bool(warning)
        assert warning in trained.stderr
        assert digest(adapter) == before
    with client_of(project, monkeypatch) as client:
        (run,) = runs(client)
        record = records.read(STYLE, project.folder)
        assert run.data.tags["aclora.fingerprint"] == record.fingerprint
        assert {k for k, _ in record.series} == set(run.data.metrics)
        assert {k: v for k, (v, _) in store.logged(client, run, run.data.metrics).items()} == record.series

"""The only importer of mlflow: a training's records live, and whole runs published from files.

MLflow is a view. Every run in it is found by the fingerprint of what made it, never by an id, and can be published
again from the files; nothing here can change what a stage writes, or stop it.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aclora.core.errors import InputError
from aclora.project import records
from aclora.tracking.live import live as live

EXPERIMENT = "aclora"
FINGERPRINT, TRAIN_FINGERPRINT, ADAPTER = "aclora.project.fingerprint", "aclora.train_fingerprint", "aclora.adapter"
STYLE, COMMIT, DIRTY, SUPERSEDED = "aclora.style", "mlflow.source.git.commit", "aclora.dirty", "aclora.superseded"
COMPARED = ("scores.json", "evaluation.json", "per_image.csv", "per_reference.csv")
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True)
class Champion:
    """The registered version with the alias `champion`, and a folder with its run's `COMPARED` files."""

    version: str
    run_id: str
    fingerprint: str
    folder: Path


@dataclass(frozen=True)
class Published:
    """What `aclora reproduce` needs of a run; `commit` is None without git, `patch` where nothing differed."""

    run_id: str
    style: str
    commit: str | None
    patch: bytes | None
    digest: str
    stages: dict[str, dict]


def uri() -> str:
    """The tracking store: `MLFLOW_TRACKING_URI`, else a database in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def publish(styles: list[str]) -> dict[str, str]:
    """Make the runs of `styles` in MLflow what their files say, and return each one's address.

    Done twice it changes nothing. Raises `InputError` for an unknown style, outputs that are out of date, and a
    tracking store that cannot be reached.
    """
    from aclora.tracking.publish import complete

    root = Path.cwd()
    records.check(styles, root)
    with reached() as client, _alone(root):
        return {style: _address(complete(client, style, root)) for style in styles}


def champion(style: str, into: Path) -> Champion | None:
    """The version of `style` that has the alias `champion`, its run's figures in `into`; None where none has it."""
    with reached() as client:
        if not (version := _aliased(client, style, "champion")):
            return None
        run = client.get_run(version.run_id)
        with tempfile.TemporaryDirectory() as scratch:
            for file in COMPARED:  # stores differ in the folders that they make
                shutil.copy(client.download_artifacts(version.run_id, f"metrics/{file}", scratch), into / file)
        return Champion(str(version.version), version.run_id, run.data.tags[FINGERPRINT], into)


def promote(style: str) -> str:
    """Give the alias `champion` to the version of `style`'s run as it stands, published first; returns the version."""
    from aclora.tracking.publish import complete

    root = Path.cwd()
    records.check([style], root)
    with reached() as client, _alone(root):
        run = complete(client, style, root)
        version = str(version_of(client, style, run.info.run_id).version)
        client.set_registered_model_alias(_model(style), "champion", version)
        return version


def run_url(style: str) -> str | None:
    """The address of the run that belongs to `style`'s inputs as they stand; None where it is not in MLflow."""
    from aclora.project.fingerprint import run_fingerprint

    wanted = run_fingerprint(style)
    with reached() as client:
        run = _find(client, FINGERPRINT, wanted)
        return _address(run) if run else None


def find(name: str) -> Published:
    """The published run that `name` means: a run's id, `style@alias`, or the beginning of a fingerprint.

    Raises `InputError` where there is none, several, or one whose files were never published.
    """
    with reached(create=False) as client, tempfile.TemporaryDirectory() as scratch:
        run = _named(client, name)
        tags = run.data.tags
        if ADAPTER not in tags:
            raise InputError(f"run {name!r} was never published whole: `aclora publish {tags.get(STYLE)}` does that")
        stages = records.read_json(Path(client.download_artifacts(run.info.run_id, "dvc/lock.json", scratch)))
        patch = None
        if tags.get(DIRTY) == "true":
            patch = Path(client.download_artifacts(run.info.run_id, "git/diff.patch", scratch)).read_bytes()
        return Published(run.info.run_id, tags[STYLE], tags.get(COMMIT), patch, tags[ADAPTER], stages)


@contextlib.contextmanager
def reached(create: bool = True, **settings: str) -> Iterator:
    """A client of the tracking store; what fails inside is an `InputError` in one line that names the store.

    `settings` are environment variables of mlflow's, for this process, where the user has set none. Without `create`
    the default store must be there.
    """
    for key, value in (DEFAULTS | settings).items():
        os.environ.setdefault(key, value)
    store, file = uri(), Path.cwd() / "mlflow.db"
    if not create and not os.environ.get("MLFLOW_TRACKING_URI") and not file.exists():
        raise InputError(f"{file} is missing: set MLFLOW_TRACKING_URI to the tracking server that has the run")
    import requests
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for noisy in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        yield MlflowClient(store)
    except (MlflowException, requests.RequestException, SQLAlchemyError, OSError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"MLFLOW_TRACKING_URI = {store!r} cannot be used: {why[:200]}") from None


def run_of(client, style: str, fingerprint: str, train_fingerprint: str):
    """The run of a fingerprint, found or made. One that is live, of the same training, becomes it."""
    if run := _find(client, FINGERPRINT, fingerprint):
        return run
    tags = {STYLE: style, FINGERPRINT: fingerprint, TRAIN_FINGERPRINT: train_fingerprint}
    tags["mlflow.runName"] = f"{style} {fingerprint[:8]}"
    run = _find(client, TRAIN_FINGERPRINT, train_fingerprint)
    if run and ADAPTER not in run.data.tags and run.data.tags[STYLE] == style:
        log_texts(client, run.info.run_id, {}, tags)
        return client.get_run(run.info.run_id)
    return client.create_run(_experiment(client), tags=tags)


def logged(client, run, keys) -> dict[tuple[str, int], float]:
    """The points that a run has of `keys`, as (key, step) → value."""
    there = [key for key in keys if key in run.data.metrics]
    return {(key, m.step): m.value for key in there for m in client.get_metric_history(run.info.run_id, key)}


def log_series(client, run_id: str, values: dict[tuple[str, int], float], model: str | None = None) -> None:
    """Log (key, step) → value in as few requests as there may be; with `model` as that LoggedModel's too."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(key, value, now, step, model_id=model) for (key, step), value in values.items()]
    for i in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[i : i + 1000])


def log_texts(client, run_id: str, params: dict[str, str], tags: dict[str, str]) -> None:
    """Log parameters and tags."""
    from mlflow.entities import Param, RunTag

    entries = [Param(k, v) for k, v in params.items()] + [RunTag(k, v) for k, v in tags.items()]
    for i in range(0, len(entries), 100):
        some = entries[i : i + 100]
        of = {kind: [e for e in some if isinstance(e, kind)] for kind in (Param, RunTag)}
        client.log_batch(run_id, params=of[Param], tags=of[RunTag])


def log_dataset(client, run_id: str, name: str, rows: list[dict], source: str) -> None:
    """Log the rows that describe a data set as the run's input, by their hash."""
    import mlflow.data
    import pandas
    from mlflow.entities import DatasetInput, InputTag

    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:36]  # as long as mlflow takes it
    with warnings.catch_warnings(action="ignore"):  # about two kinds of sources that are the same
        dataset = mlflow.data.from_pandas(pandas.DataFrame(rows), source=source, name=name, digest=digest)
    given = DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", "training")])
    client.log_inputs(run_id, [given])


def register(client, style: str, run_id: str, model: str) -> None:
    """Make a LoggedModel the output of a run and the next version of the style's registered model."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # it is there already
        client.create_registered_model(_model(style))
    client.log_outputs(run_id, [LoggedModelOutput(model, 0)])
    client.create_model_version(_model(style), f"models:/{model}", run_id, model_id=model)


def version_of(client, style: str, run_id: str):
    """The registered version that a run gave, or None."""
    found = client.search_model_versions(f"name = '{_model(style)}'")
    return next((v for v in found if v.run_id == run_id), None)


def _aliased(client, style, alias):
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(_model(style), alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _named(client, name):
    """The run that a user's word means."""
    from mlflow.exceptions import MlflowException

    style, at, alias = name.partition("@")
    if at:
        if version := _aliased(client, style, alias):
            return client.get_run(version.run_id)
        raise InputError(f"run {name!r}: {_model(style)} has no version with the alias {alias!r} in {uri()}")
    with contextlib.suppress(MlflowException):
        return client.get_run(name)
    found = _search(client, f"tags.`{FINGERPRINT}` LIKE '{name}%'") if name.isalnum() and len(name) >= 6 else []
    if len({run.data.tags[FINGERPRINT] for run in found}) == 1:
        return found[0]
    several = ", ".join(f"{run.data.tags[STYLE]} {run.data.tags[FINGERPRINT]}" for run in found)
    why = f"is the beginning of several: {several}" if found else f"is not in {uri()}"
    raise InputError(f"run {name!r} {why}; give a run's id, style@alias, or 6 digits or more of a fingerprint")


def _find(client, tag, value):
    """The run whose tag has this value, or None; the newest of those that stand."""
    found = _search(client, f"tags.`{tag}` = '{value}'")
    return next((run for run in found if SUPERSEDED not in run.data.tags), None)


def _search(client, wanted):
    """The runs, newest first, those that stand before those that were superseded."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = client.search_runs([experiment.experiment_id], wanted) if experiment else []
    return sorted(found, key=lambda run: SUPERSEDED in run.data.tags)


def _experiment(client):
    """The experiment's id; in the default store its artifacts lie in the project's folder."""
    from mlflow.exceptions import MlflowException

    place = None if os.environ.get("MLFLOW_TRACKING_URI") else (Path.cwd() / "mlartifacts").as_uri()
    with contextlib.suppress(MlflowException):  # another process was faster
        if not client.get_experiment_by_name(EXPERIMENT):
            kind = {"mlflow.experimentKind": "custom_model_development"}  # for the pages: no chat-bot
            client.create_experiment(EXPERIMENT, artifact_location=place, tags=kind)
    return client.get_experiment_by_name(EXPERIMENT).experiment_id


@contextlib.contextmanager
def _alone(root):
    """One process at a time publishes from a folder, or two would make the same run."""
    (root / ".cache").mkdir(exist_ok=True)
    with (root / ".cache/publish.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _address(run):
    """Where a browser finds a run; for a store without a server its name there."""
    store, run_id = uri(), run.info.run_id
    if store.startswith("http"):
        return f"{store.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run_id}"
    return f"runs:/{run_id}"


def _model(style):
    return f"{EXPERIMENT}-{style}"

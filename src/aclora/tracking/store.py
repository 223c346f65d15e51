"""The tracking store: runs found by the fingerprint of their inputs, and what is logged to them.

MLflow is a view. No id of its own is needed to find a run, and every run can be published again from the files;
nothing in this room can change what a stage writes, or stop it.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator

from aclora.core.errors import InputError
from aclora.core.files import part_of
from aclora.project.home import home
from aclora.project.records import SERIES

EXPERIMENT = "aclora"
FINGERPRINT, TRAIN_FINGERPRINT, ADAPTER = "aclora.fingerprint", "aclora.train_fingerprint", "aclora.adapter"
STYLE, COMMIT, DIRTY, SUPERSEDED = "aclora.style", "mlflow.source.git.commit", "aclora.dirty", "aclora.superseded"
NAME, DVC_EXPERIMENT, LOCKS = "mlflow.runName", "aclora.experiment", "aclora.locks"
Logged = dict[tuple[str, int], tuple[float, int]]
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def uri() -> str:
    """The tracking store: `MLFLOW_TRACKING_URI`, else a database in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


@contextlib.contextmanager
def alone(what: str) -> Iterator[None]:
    """One process at a time of this project's does this: two would create the same store, or the same run."""
    folder = home() / ".cache"
    folder.mkdir(exist_ok=True)
    with (folder / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def connected(create: bool = True, **settings: str) -> Iterator:
    """A client of the tracking store. Whatever fails inside is an `InputError` in one line that names the store.

    `settings` are environment variables of MLflow's, set for this process unless the user has set them. Without
    `create` the default store must exist.
    """
    for key, value in (DEFAULTS | settings).items():
        os.environ.setdefault(key, value)
    store, file = uri(), home() / "mlflow.db"
    own = not os.environ.get("MLFLOW_TRACKING_URI")
    if own and not create and not file.exists():
        raise InputError(f"{file} is missing: set MLFLOW_TRACKING_URI to the tracking server that has the run")
    import requests
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for noisy in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        if own and not file.exists():
            with alone("tracking"):
                _create(file)
        yield MlflowClient(store)
    except (MlflowException, requests.RequestException, SQLAlchemyError, OSError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"MLFLOW_TRACKING_URI = {store!r} cannot be used: {why[:200]}") from None


def _create(file):
    """Make the default database beside its place: one that a kill left half made never opens again."""
    from mlflow import MlflowClient

    if file.exists():  # another process was first
        return
    for left in file.parent.glob(f".{file.name}.*.part*"):
        left.unlink()
    part = part_of(file)
    MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
    part.replace(file)


def run_of(
    client,
    style: str,
    fingerprint: str,
    train_fingerprint: str,
    params: dict[str, str] | None = None,
    experiment: str | None = None,
):
    """The run of a fingerprint; created if missing, and named for DVC's `experiment` if it comes from one.

    A run of the same training that has no scores yet becomes it, if none of its parameters is another than in `params`.
    """
    tags = {STYLE: style, FINGERPRINT: fingerprint, TRAIN_FINGERPRINT: train_fingerprint}
    name = {NAME: f"{style} {experiment}", DVC_EXPERIMENT: experiment} if experiment else {}
    with alone("tracking"):
        run = find(client, FINGERPRINT, fingerprint)
        if run and (not name or DVC_EXPERIMENT in run.data.tags):
            return run
        if run:
            log_texts(client, run.info.run_id, {}, name)
            return client.get_run(run.info.run_id)
        tags |= name or {NAME: f"{style} {fingerprint[:8]}"}
        for run in search(client, f"tags.`{TRAIN_FINGERPRINT}` = '{train_fingerprint}'"):
            if _unfinished(run, style, params or {}):
                log_texts(client, run.info.run_id, {}, tags)
                return client.get_run(run.info.run_id)
        return client.create_run(_experiment(client), tags=tags)


def _unfinished(run, style, params):
    """Whether a run is a training alone, without scores, whose parameters are these."""
    tags, known = run.data.tags, run.data.params
    trained_only = all(key.startswith(SERIES) for key in run.data.metrics)
    same = all(known[key] == value for key, value in params.items() if key in known)
    return trained_only and same and tags[STYLE] == style and not {ADAPTER, SUPERSEDED} & tags.keys()


def supersede(client, run) -> None:
    """The same inputs had other results, on another kind of machine: the run stays, and is found no more."""
    log_texts(client, run.info.run_id, {}, {SUPERSEDED: "true"})
    client.set_terminated(run.info.run_id, "FINISHED")


def complete(client, style: str, lock: str):
    """The run, published with all its files, whose dvc.lock had this digest; None if there is none."""
    found = search(client, f"tags.`{LOCKS}` LIKE '%{lock}%' and tags.`{STYLE}` = '{style}'")
    done = [run for run in found if is_complete(run)]
    return next((run for run in done if version_of(client, style, run.info.run_id)), None)


def is_complete(run) -> bool:
    """Whether publishing the run came to its end, and no later training of the same began since."""
    return ADAPTER in run.data.tags and SUPERSEDED not in run.data.tags and run.info.status == "FINISHED"


def find(client, tag: str, value: str):
    """The newest run whose tag has this value and that was not superseded, or None."""
    found = search(client, f"tags.`{tag}` = '{value}'")
    return next((run for run in found if SUPERSEDED not in run.data.tags), None)


def search(client, condition: str) -> list:
    """The runs that meet a condition in MLflow's search language, newest first, superseded ones last."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = client.search_runs([experiment.experiment_id], condition) if experiment else []
    return sorted(found, key=lambda run: SUPERSEDED in run.data.tags)


def address(run) -> str:
    """Where a browser finds a run; for a store without a server, the run's name in it."""
    store, run_id = uri(), run.info.run_id
    if store.startswith("http"):
        return f"{store.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run_id}"
    return f"runs:/{run_id}"


def logged(client, run, keys: Iterable[str]) -> dict[tuple[str, int], tuple[float, int]]:
    """The points that a run has of `keys`, as (key, step) → value and time."""
    present = sorted({key for key in keys if key in run.data.metrics})
    found = (m for key in present for m in client.get_metric_history(run.info.run_id, key))
    return {(m.key, m.step): (m.value, m.timestamp) for m in found}


def log_series(
    client, run_id: str, values: dict[tuple[str, int], float], done: Logged | None = None, model: str | None = None
) -> None:
    """Log (key, step) → value in as few requests as possible; what is in `done` (see `logged`) has been.

    With `model` all of them are also that LoggedModel's; those in `done` then keep their time, so that the run does not
    get them twice.
    """
    from mlflow.entities import Metric

    now, done = int(time.time() * 1000), done or {}
    new = values if model else {point: value for point, value in values.items() if point not in done}
    metrics = [
        Metric(key, value, done.get((key, step), (value, now))[1], step, model_id=model)
        for (key, step), value in new.items()
    ]
    for i in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[i : i + 1000])


def log_texts(client, run_id: str, params: dict[str, str], tags: dict[str, str]) -> None:
    """Log parameters and tags."""
    from mlflow.entities import Param, RunTag

    entries = [Param(k, v) for k, v in params.items()] + [RunTag(k, v) for k, v in tags.items()]
    for i in range(0, len(entries), 100):
        batch = entries[i : i + 100]
        by_kind = {kind: [e for e in batch if isinstance(e, kind)] for kind in (Param, RunTag)}
        client.log_batch(run_id, params=by_kind[Param], tags=by_kind[RunTag])


def log_dataset(client, run_id: str, name: str, rows: list[dict], source: str) -> None:
    """Log the rows that describe a data set as the run's input, identified by their hash."""
    import pandas
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.entities import DatasetInput, InputTag

    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:36]  # MLflow's longest
    with warnings.catch_warnings(action="ignore"):  # about two kinds of sources that are the same
        dataset = from_pandas(pandas.DataFrame(rows), source=source, name=name, digest=digest)
    entry = DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", "training")])
    client.log_inputs(run_id, [entry])


def register(client, style: str, run_id: str, model: str) -> None:
    """Make a LoggedModel the output of a run and the next version of the style's registered model."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # it exists already
        client.create_registered_model(model_name(style))
    client.log_outputs(run_id, [LoggedModelOutput(model, 0)])
    client.create_model_version(model_name(style), f"models:/{model}", run_id, model_id=model)


def version_of(client, style: str, run_id: str):
    """The registered version that a run produced, or None."""
    found = client.search_model_versions(f"name = '{model_name(style)}'")
    return next((v for v in found if v.run_id == run_id), None)


def version_with_alias(client, style: str, alias: str):
    """The registered version of a style that has an alias, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model_name(style), alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def model_name(style: str) -> str:
    """The name of a style's registered model."""
    return f"{EXPERIMENT}-{style}"


def _experiment(client):
    """The experiment's id; in the default store its artifacts are in the project's folder."""
    from mlflow.exceptions import MlflowException

    artifacts = None if os.environ.get("MLFLOW_TRACKING_URI") else (home() / "mlartifacts").as_uri()
    with contextlib.suppress(MlflowException):  # another process created it first
        if not client.get_experiment_by_name(EXPERIMENT):
            kind = {
                "mlflow.experimentKind": "custom_model_development"
            }  # otherwise MLflow shows the pages of a chat bot
            client.create_experiment(EXPERIMENT, artifact_location=artifacts, tags=kind)
    return client.get_experiment_by_name(EXPERIMENT).experiment_id

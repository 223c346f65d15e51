"""The tracking store: runs found by the fingerprint of their inputs, and what is logged to them.

MLflow is a view. No id of its own is needed to find a run, and every run can be published again from the files;
nothing in this room can change what a stage writes, or stop it.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from aclora.core.errors import InputError

EXPERIMENT = "aclora"
FINGERPRINT, TRAIN_FINGERPRINT, ADAPTER = "aclora.fingerprint", "aclora.train_fingerprint", "aclora.adapter"
STYLE, COMMIT, DIRTY, SUPERSEDED = "aclora.style", "mlflow.source.git.commit", "aclora.dirty", "aclora.superseded"
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def uri() -> str:
    """The tracking store: `MLFLOW_TRACKING_URI`, else a database in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


@contextlib.contextmanager
def connected(create: bool = True, **settings: str) -> Iterator:
    """A client of the tracking store. Whatever fails inside is an `InputError` in one line that names the store.

    `settings` are environment variables of MLflow's, set for this process unless the user has set them. Without
    `create` the default store must exist.
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
    """The run of a fingerprint; created if missing. An unpublished live run of the same training becomes it."""
    if run := find(client, FINGERPRINT, fingerprint):
        return run
    tags = {STYLE: style, FINGERPRINT: fingerprint, TRAIN_FINGERPRINT: train_fingerprint}
    tags["mlflow.runName"] = f"{style} {fingerprint[:8]}"
    run = find(client, TRAIN_FINGERPRINT, train_fingerprint)
    if run and ADAPTER not in run.data.tags and run.data.tags[STYLE] == style:
        log_texts(client, run.info.run_id, {}, tags)
        return client.get_run(run.info.run_id)
    return client.create_run(_experiment(client), tags=tags)


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


def logged(client, run, keys: Iterable[str]) -> dict[tuple[str, int], float]:
    """The points that a run has of `keys`, as (key, step) → value."""
    present = [key for key in keys if key in run.data.metrics]
    return {(key, m.step): m.value for key in present for m in client.get_metric_history(run.info.run_id, key)}


def log_series(client, run_id: str, values: dict[tuple[str, int], float], model: str | None = None) -> None:
    """Log (key, step) → value in as few requests as possible; with `model`, also as that LoggedModel's."""
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

    artifacts = None if os.environ.get("MLFLOW_TRACKING_URI") else (Path.cwd() / "mlartifacts").as_uri()
    with contextlib.suppress(MlflowException):  # another process created it first
        if not client.get_experiment_by_name(EXPERIMENT):
            kind = {
                "mlflow.experimentKind": "custom_model_development"
            }  # otherwise MLflow shows the pages of a chat bot
            client.create_experiment(EXPERIMENT, artifact_location=artifacts, tags=kind)
    return client.get_experiment_by_name(EXPERIMENT).experiment_id

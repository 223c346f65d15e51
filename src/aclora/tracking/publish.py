"""A style's run, whole, from its files into MLflow: each step logs what is not there yet."""

import json
import re
import tempfile
from pathlib import Path

from aclora.project import records
from aclora.tracking.store import (
    ADAPTER,
    COMMIT,
    DIRTY,
    STYLE,
    SUPERSEDED,
    log_dataset,
    log_series,
    log_texts,
    logged,
    register,
    run_of,
    version_of,
)


def complete(client, style: str, root: Path):
    """Find or make the run of a style's outputs in `root`, log what it lacks, and return it."""
    record = records.read(style, root)
    run = run_of(client, style, record.fingerprint, record.train_fingerprint)
    done = logged(client, run, {key for key, _ in record.series})
    if run.data.tags.get(ADAPTER, record.digest) != record.digest or not done.items() <= record.series.items():
        # the same inputs on another kind of machine: its run stays, this one is the style's
        log_texts(client, run.info.run_id, {}, {SUPERSEDED: "true"})
        client.set_terminated(run.info.run_id, "FINISHED")
        run, done = run_of(client, style, record.fingerprint, record.train_fingerprint), {}
    run_id, version = run.info.run_id, version_of(client, style, run.info.run_id)
    if version and ADAPTER in run.data.tags and run.info.status == "FINISHED":
        return run
    for file, folder in record.files.items():
        client.log_artifact(run_id, str(file), folder)
    client.log_text(run_id, json.dumps(record.stages, indent=1), "dvc/lock.json")
    _log_code(client, record, run, root)
    _log_images(client, record, run_id)
    log_dataset(client, run_id, style, record.captions, record.pictures)
    model = version.source.removeprefix("models:/") if version else _log_adapter(client, record, run, root)
    done |= logged(client, run, {key for key, _ in record.scores})
    log_series(client, run_id, {k: v for k, v in record.series.items() if k not in done})
    log_series(client, run_id, {k: v for k, v in record.scores.items() if k not in done}, model)
    log_texts(client, run_id, record.params, record.tags)
    if not version:
        register(client, style, run_id, model)
    client.set_tag(run_id, ADAPTER, record.digest)  # last: now the run is whole
    client.set_terminated(run_id, "FINISHED")
    return run


def _log_code(client, record, run, root):
    """Commit and patch, once: a later commit that gives the same fingerprint gives the same run."""
    if COMMIT in run.data.tags or not (code := records.code(root, record.stages)):
        return
    if code.patch:
        with tempfile.TemporaryDirectory() as scratch:
            (patch := Path(scratch) / "diff.patch").write_bytes(code.patch)
            client.log_artifact(run.info.run_id, str(patch), "git")
    for file in code.left_out:
        print(f"{record.style}: {file} is in neither git nor DVC, so its run cannot be reproduced: `dvc add {file}`")
    source = {"mlflow.source.name": "dvc repro", "mlflow.source.type": "LOCAL", COMMIT: code.commit}
    log_texts(client, run.info.run_id, {}, source | {DIRTY: "true" if code.patch else "false"})


def _log_images(client, record, run_id):
    """The pictures that are not there yet; their names there begin with their key and step."""
    from PIL import Image

    names = [re.split("[%+]", Path(f.path).name) for f in client.list_artifacts(run_id, "images")]
    there = {(name[0], int(name[2])) for name in names}
    for (key, step), file in record.images.items():
        if (key, step) not in there:
            with Image.open(file) as picture:
                client.log_image(run_id, picture.convert("RGB"), key=key, step=step)


def _log_adapter(client, record, run, root):
    """The adapter's folder as a LoggedModel; returns its id. What an interrupted publishing left is removed."""
    experiment, run_id = run.info.experiment_id, run.info.run_id
    for left in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        client.delete_logged_model(left.model_id)
    tags = {STYLE: record.style, ADAPTER: record.digest}
    model = client.create_logged_model(experiment, record.style, run_id, tags, model_type="adapter").model_id
    client.log_model_artifacts(model, str(records.adapter(record.style, root)))
    client.finalize_logged_model(model, "READY")
    return model

"""A style's complete run, from its files into MLflow: each step logs what is missing there."""

import json
import re
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from aclora.project import records, workspace
from aclora.project.fingerprint import run_fingerprint
from aclora.tracking import store

COMPARED = ("scores.json", "evaluation.json", "per_image.csv", "per_reference.csv")


@dataclass(frozen=True)
class Champion:
    """The registered version with the alias `champion`, and a folder with its run's `COMPARED` files."""

    version: str
    run_id: str
    fingerprint: str
    folder: Path


def publish(styles: list[str]) -> dict[str, str]:
    """Make the runs of `styles` in MLflow what their files say, and return each one's address.

    A second call changes nothing. Raises `InputError` for an unknown style, outputs that are out of date, and a
    tracking store that cannot be reached.
    """
    root = Path.cwd()
    workspace.require_up_to_date(styles)
    with store.connected() as client, store.alone("publish"):
        return {style: store.address(published(client, style, root)) for style in styles}


def promote(style: str) -> str:
    """Publish `style`'s run if needed and give its version the alias `champion`; returns the version."""
    root = Path.cwd()
    workspace.require_up_to_date([style])
    with store.connected() as client, store.alone("publish"):
        run = published(client, style, root)
        version = store.version_of(client, style, run.info.run_id)
        assert version, "publishing a run registers its version"
        client.set_registered_model_alias(store.model_name(style), "champion", str(version.version))
        return str(version.version)


def champion(style: str, into: Path) -> Champion | None:
    """The version of `style` that has the alias `champion`, its run's figures in `into`; None without a champion."""
    with store.connected() as client:
        if not (version := store.version_with_alias(client, style, "champion")):
            return None
        run = client.get_run(version.run_id)
        with tempfile.TemporaryDirectory() as scratch:
            for file in COMPARED:  # stores differ in the folders that they create
                shutil.copy(client.download_artifacts(version.run_id, f"metrics/{file}", scratch), into / file)
        return Champion(str(version.version), version.run_id, run.data.tags[store.FINGERPRINT], into)


def run_url(style: str) -> str | None:
    """The address of the run that belongs to `style`'s current inputs; None if it is not in MLflow."""
    fingerprint = run_fingerprint(style)
    with store.connected() as client:
        run = store.find(client, store.FINGERPRINT, fingerprint)
        return store.address(run) if run else None


def begun(client, results: records.Results, experiment: str | None = None):
    """The run that `results` belong to, and what it has of their series and scores; found or created.

    One whose values are others is superseded: the same inputs on another kind of machine. The new run becomes the
    style's.
    """

    def run_of():
        prints = (results.fingerprint, results.train_fingerprint)
        return store.run_of(client, results.style, *prints, results.params, experiment)

    points = results.series | results.scores
    run = run_of()
    done = store.logged(client, run, {key for key, _ in points})
    values = {point: value for point, (value, _) in done.items()}
    if run.data.tags.get(store.ADAPTER, results.digest) == results.digest and values.items() <= points.items():
        return run, done
    store.supersede(client, run)
    return run_of(), {}


def published(client, style: str, root: Path, experiment: str | None = None, base: str = "HEAD"):
    """Find or create the run of a style's outputs in `root`, log what it lacks, and return it.

    Its code is described as a commit and what differs from that: `base`, of an experiment the commit that it changes.
    """
    record = records.read(style, root)
    run, done = begun(client, record, experiment)
    run_id, version = run.info.run_id, store.version_of(client, style, run.info.run_id)
    if not (version and store.is_complete(run)):
        _log_files(client, record, run, root, base)
        model = version.source.removeprefix("models:/") if version else _log_adapter(client, record, run, root)
        store.log_series(client, run_id, record.series, done)
        store.log_series(client, run_id, record.scores, done, model)
        store.log_texts(client, run_id, record.params, record.tags)
        if not version:
            store.register(client, style, run_id, model)
        client.set_tag(run_id, store.ADAPTER, record.digest)  # last: now the run is complete
        client.set_terminated(run_id, "FINISHED")
    known = run.data.tags.get(store.LOCKS, "").split()
    if record.lock not in known:
        client.set_tag(run_id, store.LOCKS, " ".join([*known, record.lock][-100:]))
    return run


def _log_files(client, record, run, root, base):
    """What of a run is no number: its files, dvc.lock, code, pictures and data set."""
    run_id = run.info.run_id
    for file, folder in record.files.items():
        client.log_artifact(run_id, str(file), folder)
    client.log_text(run_id, json.dumps(record.stages, indent=1), "dvc/lock.json")
    _log_code(client, record, run, root, base)
    _log_images(client, record, run_id)
    store.log_dataset(client, run_id, record.style, record.captions, record.pictures)


def _log_code(client, record, run, root, base):
    """Commit and patch, once: a later commit that gives the same fingerprint gives the same run."""
    if store.COMMIT in run.data.tags or not (code := workspace.code(root, record.stages, base)):
        return
    if code.patch:
        with tempfile.TemporaryDirectory() as scratch:
            (patch := Path(scratch) / "diff.patch").write_bytes(code.patch)
            client.log_artifact(run.info.run_id, str(patch), "git")
    for path in code.left_out:
        print(
            f"{record.style}: {path} is in neither git nor DVC, and too large for MLflow, so this run cannot be "
            f"reproduced: `{shlex.join(['dvc', 'add', path])}` before the next"
        )
    source = {"mlflow.source.name": "dvc repro", "mlflow.source.type": "LOCAL", store.COMMIT: code.commit}
    store.log_texts(client, run.info.run_id, {}, source | {store.DIRTY: "true" if code.patch else "false"})


def _log_images(client, record, run_id):
    """The pictures that are missing; the names of those that exist begin with their key and step."""
    from PIL import Image

    names = [re.split("[%+]", Path(f.path).name) for f in client.list_artifacts(run_id, "images")]
    present = {(name[0], int(name[2])) for name in names}
    for (key, step), file in record.images.items():
        if (key, step) not in present:
            with Image.open(file) as picture:
                client.log_image(run_id, picture.convert("RGB"), key=key, step=step)


def _log_adapter(client, record, run, root):
    """The adapter's folder as a LoggedModel; returns its id. What an interrupted call left behind is removed."""
    experiment, run_id = run.info.experiment_id, run.info.run_id
    for incomplete in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        client.delete_logged_model(incomplete.model_id)
    tags = {store.STYLE: record.style, store.ADAPTER: record.digest}
    model = client.create_logged_model(experiment, record.style, run_id, tags, model_type="adapter").model_id
    client.log_model_artifacts(model, str(records.adapter(record.style, root)))
    client.finalize_logged_model(model, "READY")
    return model

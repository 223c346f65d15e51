"""A real training of the miniature whose worker or flow is killed ends with the same bytes."""

import os
import shutil
import signal

import pytest
import yaml

from tests.flows.conftest import Site, at_work, none_left, until
from tests.pipeline.conftest import copy

ADAPTER = "models/adapters/watercolor/pytorch_lora_weights.safetensors"


def miniature(folder):
    """The project with checks, captions and training alone, a checkpoint each epoch."""
    project = copy(folder)
    pipeline = yaml.safe_load((folder / "dvc.yaml").read_text())
    chosen = ("check", "check-style", "caption", "train-aclora")
    pipeline["stages"] = {name: pipeline["stages"][name] for name in chosen}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    project.edit("params.yaml", "  epochs: ", "  epochs: 24")
    project.edit("params.yaml", "  every: ", "  every: 2")
    return project


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The adapter of an undisturbed training."""
    project = miniature(tmp_path_factory.mktemp("expected") / "project")
    project.repro()
    return (project.folder / ADAPTER).read_bytes()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Another copy of the project, with a server and a worker."""
    site = Site(miniature(tmp_path_factory.mktemp("faults") / "project"), "--silence=75")
    yield site
    site.stop()


def training(site):
    return at_work(site.folder, "stages.train")


def some_epochs(site, run, least):
    """Wait until a checkpoint is there and some epochs are done."""

    def epochs():
        logs = list(site.folder.glob(".cache/training/*/history.jsonl"))
        return sum(log.read_text().count('"epoch"') for log in logs) if training(site) else 0

    def enough():
        return epochs() >= least or site.state(run)["type"] == "FAILED"

    until(enough, 300, f"{least} lines of history")
    assert epochs() >= least, site.log(run)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "worker and flow"])
def test_a_killed_training_ends_with_the_same_bytes(site, expected, victim):
    shutil.rmtree(site.folder / ".cache", ignore_errors=True)
    shutil.rmtree(site.folder / ".dvc/cache", ignore_errors=True)
    shutil.rmtree(site.folder / "models/adapters/watercolor", ignore_errors=True)
    run = site.launch("style", 'styles=["watercolor"]')
    some_epochs(site, run, 8)
    flow = at_work(site.folder, "prefect.engine")[0].pid
    for pid in [site.pid("gpu-0")] * ("worker" in victim) + [flow] * ("flow" in victim):
        os.kill(pid, signal.SIGKILL)
    none_left(site.folder, "stages.train", "dvc")
    site.start()  # the worker, where it is gone

    def states():
        return [s["name"] for s in site.get(f"flow_run_states/?flow_run_id={run}")]

    # without worker and flow nobody is left to say so: silence does
    until(lambda: "Crashed" in states(), 300, "Crashed")
    assert site.ended(run)["type"] == "COMPLETED", site.log(run)
    assert states().count("AwaitingRetry") == 1
    assert site.tasks(run)["train-aclora@watercolor"] == "Ran"
    assert (site.folder / ADAPTER).read_bytes() == expected

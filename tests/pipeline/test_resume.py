"""A training killed at any moment and repeated gives the adapter of one that was never killed, byte for byte."""

import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.pipeline.conftest import BYTE_CODE, copy

DEADLINE = 120  # seconds, for a training of a few


def adapter(project) -> dict[str, str]:
    """Digests of the adapter's files."""
    folder = project.folder / "models/adapters/watercolor"
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A copy that has captions, with a checkpoint every second epoch."""
    project = copy(tmp_path_factory.mktemp("resume") / "project")
    project.edit("params.yaml", "  every: ", "  every: 2")
    project.repro("caption@watercolor")
    return project


@pytest.fixture(scope="module")
def whole(small):
    """What a training that is never killed makes, without any checkpoint."""
    small.edit("params.yaml", "  every: ", "  every: 100")
    train(small)
    small.edit("params.yaml", "  every: ", "  every: 2")
    return adapter(small)


def train(project) -> str:
    """`dvc repro` of the train stage although it may be done; what it said."""
    return project.repro("--single-item", "--force", "train-aclora@watercolor")


def forget(project) -> None:
    """No training has begun, and dvc.lock knows of none: what it has recorded is trained anew when it is forced."""
    (project.folder / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(project.folder / ".cache/training", ignore_errors=True)


def start(project, *command) -> subprocess.Popen:
    code = {"PYTHONPATH": os.pathsep.join([str(project.folder / "src"), str(project.folder)])}
    env = os.environ | BYTE_CODE | code | {"ACLORA_TRACKING": "off"}
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=project.folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kept(project) -> list[str]:
    """The names of the checkpoints that stand."""
    return sorted(f.name for f in (project.folder / ".cache/training").glob("*/*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize(("point", "nth", "stand"), [("restart", 2, 2), ("write", 3, 4), ("rename", 2, 2)])
def test_killed_at_a_failpoint_it_goes_on(small, whole, point, nth, stand):
    forget(small)
    process = start(small, "tests.pipeline.kill_at", point, str(nth), "watercolor")
    assert process.communicate(timeout=DEADLINE) is not None
    assert process.returncode == -signal.SIGKILL
    assert kept(small)[-1] == f"{stand:06}.safetensors"
    assert re.search(rf"watercolor: resumes after epoch {stand} of 8", train(small))
    assert adapter(small) == whole
    assert kept(small) == ["000008.safetensors"]  # until dvc.lock has the training


@pytest.mark.slow
def test_killed_with_its_outs_half_in_place_it_goes_on(small, whole):
    forget(small)
    process = start(small, "tests.pipeline.kill_at", "outs", "1", "watercolor")
    process.communicate(timeout=DEADLINE)
    assert process.returncode == -signal.SIGKILL
    assert "resumes after epoch 8 of 8" in train(small)
    assert adapter(small) == whole


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_goes_on(small, whole):
    """Each process goes on where the one before was killed; when one ends by itself, a new training begins."""
    rng = random.Random(0)
    kills = after_a_record = 0
    while kills < 20:
        process = start(small, "stages.train", "watercolor")
        loading = rng.random() < 0.2
        if not loading:
            wait_for_a_record(small, process)
        try:
            process.wait(timeout=rng.uniform(0, 3))
            assert process.returncode == 0, process.stderr.read()
            assert adapter(small) == whole
            shutil.rmtree(small.folder / ".cache/training")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills, after_a_record = kills + 1, after_a_record + (not loading)
        process.stderr.close()
    assert after_a_record >= 10
    train(small)
    assert adapter(small) == whole


def wait_for_a_record(project, process):
    """Until the training has written a record of its own, or is over."""
    logs = project.folder / ".cache/training"
    before, end = {f: f.stat().st_ino for f in logs.glob("*/history.jsonl")}, time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < end:
        # when a training starts, the log is written anew up to its checkpoint
        now = [f for f in logs.glob("*/history.jsonl") if f.stat().st_ino != before.get(f)]
        if now and now[0].read_bytes():
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)


@pytest.mark.slow
def test_killed_before_dvc_has_its_outs_it_need_not_train_again(small, whole):
    forget(small)
    _, errors = start(small, "stages.train", "watercolor").communicate(timeout=DEADLINE)
    assert "Traceback" not in errors
    assert kept(small) == ["000008.safetensors"]
    assert "resumes after epoch 8 of 8" in small.repro("--no-run-cache", "train-aclora@watercolor")
    assert adapter(small) == whole
    small.repro("restart-audit@watercolor")
    assert kept(small) == []
    assert "resumes" not in small.repro("--force", "--single-item", "train-aclora@watercolor")
    assert adapter(small) == whole

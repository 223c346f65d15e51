"""Ctrl-C and SIGTERM end a stage in one line, at any moment, and leave its outs as they were."""

import shutil
import signal

import pytest

from aclora.core.files import digest
from tests.conftest import ROOT
from tests.pipeline.test_bad_input import OUTS

NAMES = {"train": "train-aclora", "audit": "restart-audit"}
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


@pytest.fixture(scope="module")
def done(own):
    return own


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """A folder for the path that holds tests/faults.py."""
    folder = tmp_path_factory.mktemp("faults")
    shutil.copy(ROOT / "tests/faults.py", folder / "sitecustomize.py")
    return folder


def run(done, faults, stage, moment, **env):
    """The stage, sent a signal at the moment; its exit status and what it printed on stderr, bars apart."""
    env |= {"PYTHONPATH": str(faults), "SIGNAL_AT": moment}
    ended = done.run("python", "-m", f"stages.{stage}", "watercolor", env=env)
    lines = ended.stderr.replace("\r", "\n").splitlines()
    return ended.returncode, [line for line in lines if line.strip() and "%|" not in line]


def left(done):
    """Half-written files, but for what DVC and MLflow have."""
    return [p for p in done.folder.rglob("*.part") if ".dvc" not in p.parts]


@pytest.mark.parametrize("stage", ["caption", "train", "generate", "audit", "evaluate"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_torch_is_imported(done, faults, stage, number):
    moment = f"{int(number)} import torch 1"
    status, lines = run(done, faults, stage, moment, DVC_STAGE=f"{NAMES.get(stage, stage)}@watercolor")
    assert status == 128 + number
    assert lines == [f"{WORDS[number]}: {NAMES.get(stage, stage)}@watercolor; run again to go on"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("stage", "moment"), [("caption", "open .txt 5"), ("generate", "open .png 9"), ("evaluate", "open .png 40")]
)
def test_at_work(done, faults, stage, moment, number):
    out = done.folder / OUTS[stage]
    before = digest(out)
    status, lines = run(done, faults, stage, f"{int(number)} {moment}")
    assert status == 128 + number
    assert lines[-1] == f"{WORDS[number]}: {stage}@watercolor; run again to go on"
    assert not any("Traceback" in line for line in lines)
    assert digest(out) == before
    assert not left(done)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_training_says_which_checkpoint_stands(done, faults, number):
    out = done.folder / OUTS["train"]
    before = digest(out)
    done.edit("params.yaml", "  every: ", "  every: 1")
    shutil.rmtree(done.folder / ".cache/training", ignore_errors=True)
    status, lines = run(done, faults, "train", f"{int(number)} open history.jsonl 6")
    assert status == 128 + number
    assert "Traceback" not in str(lines)
    said, stands, again = lines[-1].split("; ")
    assert (said, again) == (f"{WORDS[number]}: train@watercolor", "run again to go on")
    checkpoint = done.folder / stands.partition(" stands: ")[2]
    assert checkpoint.is_file()
    assert int(checkpoint.stem) == int(stands.split()[4])
    assert digest(out) == before
    assert not left(done)


def test_a_signal_that_is_ignored_stays_ignored(done, faults):
    """As `nohup` starts it."""
    ended = done.run(
        "sh", "-c", "trap '' HUP INT; python -m stages.caption watercolor",
        env={"PYTHONPATH": str(faults), "SIGNAL_AT": "1 open .txt 5"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr

"""`aclora run`, the front door: it mends, runs, and its exit status is true."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.pipeline.conftest import BYTE_CODE


@pytest.fixture
def faults(tmp_path):
    """A folder for the path that holds tests/faults.py."""
    shutil.copy(ROOT / "tests/faults.py", tmp_path / "sitecustomize.py")
    return tmp_path


@pytest.fixture(scope="module")
def done(own):
    return own


@pytest.fixture
def params(done):
    """Afterwards the parameters are what they were."""
    before = (done.folder / "params.yaml").read_bytes()
    yield
    (done.folder / "params.yaml").write_bytes(before)


def errors(ended):
    return [line for line in ended.stderr.splitlines() if line.startswith("error: ")]


def test_with_nothing_to_do_it_shows_the_scores(done):
    ended = done.run("aclora", "run", "watercolor")
    assert (ended.returncode, errors(ended)) == (0, [])
    assert "watercolor: 12 pictures" in ended.stdout
    assert "Running stage" not in ended.stdout
    assert "MLflow" not in ended.stdout
    assert f"{json.loads((done.folder / 'metrics/watercolor/scores.json').read_text())['kid']:.3f}" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["watercolour"], "style 'watercolour' is unknown; did you mean 'watercolor'? there are: watercolor"),
        (["watercolor", "oil"], "style 'oil' is unknown; there are: watercolor"),
        (["--", "-x"], "style '-x' is unknown; there are: watercolor"),
    ],
)
def test_an_unknown_style_runs_nothing(done, arguments, message):
    ended = done.run("aclora", "run", *arguments)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"error: {message}\n")


def test_what_the_check_finds_runs_nothing(done, params):
    done.edit("params.yaml", "  epochs: ", "  epochs: 0")
    ended = done.run("aclora", "run")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: params.yaml: train.epochs = 0: must be")
    assert "Running stage" not in ended.stdout
    assert (done.folder / "models/adapters/watercolor/adapter.json").exists()


@pytest.mark.parametrize("command", ["run", "check"])
def test_half_of_dvcs_locks_is_mended(done, command):
    (done.folder / ".dvc/tmp/rwlock").write_text("")
    assert done.run("dvc", "status").returncode != 0
    (done.folder / "metrics/watercolor/.audit.999999999.part").mkdir()
    ended = done.run("aclora", command)
    assert ended.returncode == 0, ended.stderr
    assert ".dvc/tmp/rwlock: removed it: a killed dvc left half of it" in ended.stdout
    assert done.run("dvc", "status").returncode == 0
    assert (done.folder / "metrics/watercolor/.audit.999999999.part").exists() == (command == "check")


def test_a_stage_that_fails_is_the_reason(done, params):
    done.edit("params.yaml", "  learning_rate: ", "  learning_rate: 0.9")
    done.edit("params.yaml", "  restart_every: ", "  restart_every: 20")
    ended = done.run("aclora", "run")
    assert ended.returncode == 1
    assert errors(ended) == [ended.stderr.splitlines()[-1]]
    assert errors(ended)[0].startswith("error: train-aclora@watercolor: train.learning_rate = 0.9: the loss is")
    assert "watercolor:" in ended.stdout  # the bar


@pytest.mark.slow
def test_ctrl_c_is_one_line_of_each_and_the_next_run_goes_on(done, faults, params):
    done.edit("params.yaml", "  weight_decay: ", "  weight_decay: 0.02")
    done.edit("params.yaml", "  every: ", "  every: 1")
    env = os.environ | BYTE_CODE | {"HF_HUB_OFFLINE": "1", "ACLORA_TRACKING": "off"}
    env |= {"PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])}
    env |= {"PYTHONPATH": os.pathsep.join([str(done.folder / "src"), str(faults)])}
    env |= {"SIGNAL_AT": f"{int(signal.SIGINT)} open history.jsonl 6", "SIGNAL_IN": "stages.train", "SIGNAL_GROUP": "1"}
    ended = subprocess.run(
        ["aclora", "run"],
        cwd=done.folder, env=env, capture_output=True, text=True, check=False, start_new_session=True,
    )  # fmt: skip
    assert ended.returncode == 130, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    said = [line for line in ended.stderr.splitlines() if not line.startswith("warning: ")]
    assert said == ["interrupted: aclora run; run again to go on"]
    stands = re.search(r"interrupted: train-aclora@watercolor; the checkpoint of epoch (\d) stands", ended.stdout)
    ended = done.run("aclora", "run")
    assert ended.returncode == 0, ended.stderr
    assert f"watercolor: resumes after epoch {stands[1]} of 8" in ended.stdout


@pytest.mark.slow
def test_where_mlflow_is_away_the_run_did_not_fail(done, params):
    done.edit("params.yaml", "  loss_rise: ", "  loss_rise: 1.6")
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "ACLORA_TRACKING": ""}
    ended = done.run("aclora", "run", env=away)
    assert ended.returncode == 0, ended.stderr
    assert errors(ended) == []
    assert ended.stderr.count("warning: MLflow did not get the results, `aclora publish` sends them: ") == 1
    assert "KID" in ended.stdout


@pytest.mark.slow
def test_what_ran_is_in_mlflow_afterwards(done, params):
    done.edit("params.yaml", "  loss_rise: ", "  loss_rise: 1.7")
    ended = done.run("aclora", "run", env={"ACLORA_TRACKING": ""})
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^MLflow: runs:/[0-9a-f]{32}$", ended.stdout, re.M)


@pytest.mark.slow
def test_a_full_disk_fails_the_run_and_the_next_one_loses_nothing(done, faults, params):
    done.repro()
    done.edit("params.yaml", "  seed: 30", "  seed: 31")
    done.repro("check", "check-style@watercolor")
    ended = done.run("aclora", "run", env={"PYTHONPATH": str(faults), "FULL": ".dvc/cache/files"})
    assert "Running stage 'generate@watercolor'" in ended.stdout
    assert ended.returncode == 1
    assert "no space left on the disk of .dvc/cache: free some" in errors(ended)[0]
    ended = done.run("aclora", "run")
    assert ended.returncode == 0, ended.stderr
    assert "generate@watercolor: its outputs had not reached DVC's cache, now they have" in ended.stdout
    assert "Running stage 'generate@watercolor'" not in ended.stdout

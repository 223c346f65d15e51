"""A training that is stopped and goes on ends as one that never stopped; a checkpoint is whole or absent."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from aclora.core.errors import InputError
from aclora.core.files import part_of
from aclora.training.checkpoints import Checkpoints, CheckpointsConfig
from aclora.training.loop import fit
from tests.conftest import make_method, section
from tests.training.test_loop import fresh, short, style  # noqa: F401, a fixture

EPOCHS = 6
KNOBS = {"aclora": {"max_rank": 4, "restart_every": 2}, "adalora": {"init_r": 4, "target_r": 2, "warmup": 0.0}}


def train(model, kept, name, until=EPOCHS, **more):
    """Train up to an epoch of EPOCHS, as if stopped then; the method."""
    torch.manual_seed(0)
    method = make_method(name, **KNOBS.get(name, {}))
    parameters = method.attach(model.network, model.adapter_layers)
    config = short(epochs=EPOCHS, **more)
    records = fit(model, style(), method, parameters, config, Accelerator(cpu=True), checkpoints=kept)
    for record in records:
        if record["epoch"] > until:
            break
        kept.add(record)
    return [p.detach().clone() for p in parameters]


def keep(folder, every=1, machine="here"):
    return Checkpoints(folder, section("checkpoints", CheckpointsConfig, every=every), machine).load()


@pytest.mark.parametrize("name", ["aclora", "lora", "trilora", "dora", "adalora", "loha", "lokr"])
def test_a_stopped_training_ends_as_one_that_never_stopped(fresh, tmp_path, name):  # noqa: F811
    whole = keep(tmp_path / "whole")
    expected = train(fresh(), whole, name)
    for until in (1, 3, 4):
        train(fresh(), keep(tmp_path / "stopped", every=2), name, until)
    kept = keep(tmp_path / "stopped", every=2)
    assert kept.state[0] == 4
    got = train(fresh(), kept, name)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert kept.history == whole.history
    assert len(kept.values) == len(whole.values)
    assert all(torch.equal(a, b) for a, b in zip(kept.values, whole.values, strict=True))
    lines = [json.loads(line) for line in kept.log.read_text().splitlines()]
    assert lines == kept.history


def test_two_are_kept_and_the_interval_is_obeyed(fresh, tmp_path):  # noqa: F811
    train(fresh(), keep(tmp_path, every=2), "lora")
    assert sorted(f.name for f in tmp_path.glob("*.safetensors")) == ["000004.safetensors", "000006.safetensors"]
    keep(tmp_path).clear()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["history.jsonl", "lock"]
    with pytest.raises(InputError, match="every = 0: must be at least 1 epoch"):
        section("checkpoints", CheckpointsConfig, every=0)


def test_a_broken_checkpoint_is_passed_over_for_the_one_before(fresh, tmp_path, capsys):  # noqa: F811
    train(fresh(), keep(tmp_path), "aclora", 4)
    last = tmp_path / "000004.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    kept = keep(tmp_path)
    assert kept.state[0] == 3
    assert "000004.safetensors is not a checkpoint" in capsys.readouterr().err
    assert [r["epoch"] for r in kept.history if r["event"] == "epoch"] == [1, 2, 3]


def test_another_kind_of_machine_begins_anew(fresh, tmp_path, capsys):  # noqa: F811
    train(fresh(), keep(tmp_path), "aclora", 3)
    kept = keep(tmp_path, machine="torch 9, cuda")
    assert kept.state is None
    assert kept.history == []
    assert kept.log.read_text() == ""
    assert "is of here, this is torch 9, cuda" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_leaves_the_older_checkpoint_and_the_training_goes_on(fresh, tmp_path, capsys):  # noqa: F811
    folder = tmp_path / "kept"
    train(fresh(), keep(folder), "aclora", 3)
    older = {f.name: f.read_bytes() for f in folder.glob("*.safetensors")}
    expected = train(fresh(), keep(tmp_path / "room"), "aclora")
    full = Full(folder, section("checkpoints", CheckpointsConfig, every=1), "here").load()
    got = train(fresh(), full, "aclora")
    said = capsys.readouterr().err
    assert said.count("not written (No space left on device): free space") == 1
    assert {f.name: f.read_bytes() for f in folder.glob("*.safetensors")} == older
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    shutil.rmtree(tmp_path / "room")
    assert keep(folder).state[0] == 3


class Full(Checkpoints):
    """Writes to a device that is always full."""

    def save(self, epoch, *args):
        part_of(self.folder / f"{epoch:06}.safetensors").symlink_to("/dev/full")
        super().save(epoch, *args)


def test_an_error_says_which_checkpoint_stands(fresh, tmp_path):  # noqa: F811
    kept = keep(tmp_path)
    assert kept.standing() == ""
    train(fresh(), kept, "lora", 3)
    assert kept.standing() == f"; the checkpoint of epoch 3 stands: {tmp_path}/000003.safetensors"


def test_two_trainings_of_the_same_at_once_keep_their_checkpoints_apart(tmp_path):
    """A run in the workspace and an experiment in a copy have the same fingerprint, so the same folder."""
    folder = tmp_path / "fingerprint"
    code = (
        "from pathlib import Path; from aclora.training.checkpoints import Checkpoints, CheckpointsConfig as Config\n"
        f"kept = Checkpoints(Path({str(folder)!r}), Config(every=1), 'here').load()\n"
        "print(kept.folder, kept.state and kept.state[0]); kept.add({'event': 'epoch'}); kept.clear()"
    )

    def elsewhere():
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    first = keep(folder)
    first.save(1, {"w": torch.ones(2)}, {})
    other = elsewhere()
    assert other.stdout == f"{folder}.2 None\n"
    assert other.stderr == f"another process trains the same: this one's checkpoints are in {folder}.2\n"
    assert [f.name for f in folder.glob("*.safetensors")] == ["000001.safetensors"]
    assert first.log.read_text() == ""

    killed = subprocess.run([sys.executable, "-c", code.replace("kept.clear()", "kept.save(7, {}, {})")], check=True)
    assert killed.returncode == 0
    assert [f.name for f in Path(f"{folder}.2").glob("*.safetensors")] == ["000007.safetensors"]
    assert elsewhere().stdout == f"{folder}.2 7\n"  # whoever was killed there goes on there

"""A training that is stopped and goes on ends as one that never stopped; a checkpoint is whole or absent."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from aclora.core.errors import InputError
from aclora.core.files import part_of
from aclora.training.checkpoints import Checkpoints, CheckpointsConfig, room_note
from aclora.training.loop import fit
from tests import damage
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


@pytest.mark.parametrize("name", ["aclora", "lora", "trilora", "dora", "adalora", "loha", "lokr", "oft"])
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
    with pytest.raises(InputError, match="every = 0: must be between 1 and 1000000 epochs"):
        section("checkpoints", CheckpointsConfig, every=0)


def test_a_broken_checkpoint_is_passed_over_for_the_one_before(fresh, tmp_path, capsys):  # noqa: F811
    train(fresh(), keep(tmp_path), "aclora", 4)
    last = tmp_path / "000004.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    kept = keep(tmp_path)
    assert kept.state[0] == 3
    assert "000004.safetensors is not a checkpoint" in capsys.readouterr().err
    assert [r["epoch"] for r in kept.history if r["event"] == "epoch"] == [1, 2, 3]


def rewritten(change):
    """Write a checkpoint again with other tensors or another description."""

    def spoil(file):
        with safe_open(file, "pt") as content:
            about = json.loads(content.metadata()["about"])
        tensors = load_file(file)
        change(tensors, about)
        save_file(tensors, file, {"about": json.dumps(about)})

    return spoil


def without_description(file):
    save_file(load_file(file), file)


def a_folder(file):
    file.unlink()
    file.mkdir()


WRONG = {
    "cut": damage.cut,
    "emptied": damage.emptied,
    "a folder": a_folder,
    "no description": without_description,
    "another shape": rewritten(lambda tensors, about: tensors.update({"state.parameter.0": torch.zeros(3, 5)})),
    "a tensor gone": rewritten(lambda tensors, about: tensors.pop("state.parameter.0")),
    "a moment gone": rewritten(lambda tensors, about: tensors.pop("state.optimizer.0.exp_avg")),
    "another tensor": rewritten(lambda tensors, about: tensors.update({"state.parameter.999": torch.zeros(1)})),
    "a value changed": rewritten(lambda tensors, about: tensors["state.parameter.0"].view(-1)[:1].add_(1e-6)),
    "NaN": rewritten(lambda tensors, about: tensors["state.parameter.0"].fill_(torch.nan)),
    "another epoch": rewritten(lambda tensors, about: about.update(epoch=5)),
    "no history": rewritten(lambda tensors, about: about.pop("history")),
    "a list": rewritten(lambda tensors, about: about.clear()),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_checkpoint_with_wrong_content_is_passed_over_and_said(fresh, tmp_path, capsys, case):  # noqa: F811
    whole = keep(tmp_path / "whole")
    expected = train(fresh(), whole, "aclora")
    train(fresh(), keep(tmp_path / "kept"), "aclora", 4)
    WRONG[case](tmp_path / "kept/000004.safetensors")
    capsys.readouterr()
    kept = keep(tmp_path / "kept")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "000004.safetensors is not a checkpoint of this training (" in said[0]
    assert said[0].endswith("): it is passed over")
    assert kept.state[0] == 3
    got = train(fresh(), kept, "aclora")
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert kept.history == whole.history


def test_with_no_checkpoint_that_can_be_used_it_begins_anew(fresh, tmp_path, capsys):  # noqa: F811
    expected = train(fresh(), keep(tmp_path / "whole"), "lora")
    train(fresh(), keep(tmp_path / "kept"), "lora", 4)
    for file in (tmp_path / "kept").glob("*.safetensors"):
        WRONG["another shape"](file)
    kept = keep(tmp_path / "kept")
    assert kept.state is None
    assert kept.history == []
    assert capsys.readouterr().err.count("is passed over") == 2
    got = train(fresh(), kept, "lora")
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_a_checkpoint_of_another_training_is_passed_over(fresh, tmp_path, capsys):  # noqa: F811
    train(fresh(), keep(tmp_path / "one"), "lora", 2)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert keep(tmp_path / "two").state is None
    assert "(it is of another)" in capsys.readouterr().err


def test_a_checkpoint_of_other_parameters_is_passed_over(fresh, tmp_path, capsys):  # noqa: F811
    parameters = train(fresh(), keep(tmp_path), "lora", 2)
    config = section("checkpoints", CheckpointsConfig)
    assert Checkpoints(tmp_path, config, "here").load(parameters).state[0] == 2
    assert capsys.readouterr().err == ""
    for others in (parameters[1:], [*parameters, torch.zeros(1)], [p.T for p in parameters]):
        assert Checkpoints(tmp_path, config, "here").load(others).state is None
        assert "its parameters have other names or shapes" in capsys.readouterr().err


def test_a_disk_without_room_is_said_before(tmp_path):
    assert room_note(tmp_path, [torch.zeros(10, 10)]) == ""
    huge = [torch.zeros(1, device="meta").expand(10**12, 10**3)]
    note = room_note(tmp_path, huge)
    assert note.startswith(f"{tmp_path}: its disk has ")
    assert "checkpoints need 36000000000 MB: free some" in note


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

"""The outs of a training, damaged in every way: the audit says which file, where, and what to do."""

import json

import pytest
import torch
from safetensors.torch import load_file

from aclora.core.errors import InputError
from aclora.core.tensors import save_tensors
from aclora.lora.export import save_diffusers
from stages import audit
from tests.audit.test_signatures import restarts
from tests.conftest import ROOT

LAYERS = ["mid_block.q", "mid_block.k"]
AGAIN = (
    "`dvc checkout --force models/adapters/fog` brings DVC's copy back, "
    "`dvc repro --force train-aclora@fog` trains again"
)
RESTARTS = 5


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """The adapter folder of a healthy training, in a project of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    folder = tmp_path / "models/adapters/fog"
    folder.mkdir(parents=True)
    rng = torch.Generator().manual_seed(0)
    factors = {n: (torch.randn(3, 9, generator=rng), torch.randn(7, 3, generator=rng)) for n in LAYERS}
    save_diffusers(folder / "pytorch_lora_weights.safetensors", factors, {})
    save_tensors(folder / "restarts.safetensors", {"values": torch.ones(RESTARTS, len(LAYERS), 2, 3)})
    about = {"method": "aclora", "layers": LAYERS, "pictures": 4, "size": 16}
    signal = {"rank": dict.fromkeys(LAYERS, 2), "error": dict.fromkeys(LAYERS, 0.1)}
    (folder / "adapter.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    (folder / "signal.json").write_text(json.dumps(signal, indent=1), encoding="utf-8")
    lines = [json.dumps(row) for row in restarts(RESTARTS)]
    (folder / "history.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def refused(said):
    with pytest.raises(InputError, match=said) as error:
        audit.main("fog")
    assert str(error.value).startswith("models/adapters/fog/")
    assert str(error.value).endswith(AGAIN) or "is not finite; train again" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_whole_folder_is_audited(adapter, tmp_path):
    audit.main("fog")
    report = json.loads((tmp_path / "metrics/fog/audit.json").read_text(encoding="utf-8"))
    assert (report["restarts"], report["signal_rank"], report["truncation_error_max"]) == (RESTARTS, 2, 0.1)


@pytest.mark.parametrize("name", ["adapter.json", "signal.json", "history.jsonl"])
def test_a_cut_file_is_named_with_its_line(adapter, tmp_path, name):
    text = (adapter / name).read_bytes()
    (adapter / name).write_bytes(text[:-20])
    last = text[:-20].count(b"\n") + 1
    refused(rf"{name} is damaged \(line {last}\): ")
    (adapter / name).write_bytes(b"")
    refused(rf"{name} is damaged \(line 1\): " if name != "history.jsonl" else "restarts.safetensors is damaged")
    (adapter / name).write_bytes(b"\xff" + text)
    refused(rf"{name} is damaged \(line 1\): ")
    assert not (tmp_path / "metrics").exists() or not list((tmp_path / "metrics/fog").iterdir())


@pytest.mark.parametrize("name", ["adapter.json", "history.jsonl", "pytorch_lora_weights.safetensors"])
def test_a_missing_file_is_named(adapter, name):
    (adapter / name).unlink()
    refused(f"{name} is missing: ")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("adapter.json", {"layers": None}, "layers: Input should be a valid list"),
        ("adapter.json", {"layers": [1, 2]}, "layers.0: Input should be a valid string"),
        ("adapter.json", {"size": "16"}, "size: Input should be a valid integer"),
        ("adapter.json", {"method": ""}, "method: "),
        ("adapter.json", {"layers": LAYERS[:1]}, "line 11, I_A: not one value for each layer"),
        ("signal.json", {"rank": {}}, "rank: not the layers of adapter.json"),
        ("signal.json", {"rank": dict.fromkeys(LAYERS, 0)}, "rank.mid_block.q: "),
        ("signal.json", {"error": dict.fromkeys(LAYERS, "x")}, "error.mid_block.q: "),
        ("signal.json", {"error": dict.fromkeys(LAYERS, float("nan"))}, "error.mid_block.q: "),
    ],
)
def test_a_value_of_another_kind_is_named(adapter, name, change, said):
    file = adapter / name
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    refused(said)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"', "[" * 100_000, "9" * 5000])
@pytest.mark.parametrize("name", ["adapter.json", "history.jsonl"])
def test_other_json_is_damage(adapter, name, content):
    (adapter / name).write_text(content, encoding="utf-8")
    refused(rf"{name} is damaged \(.*\): ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"event": None}, "line 11, event: "),
        ({"epoch": 0}, "line 11, epoch: "),
        ({"epoch": "10"}, "line 11, epoch: "),
        ({"p": None}, "line 11, p: "),
        ({"I": 1.5}, "line 11, I: "),
        ({"probe_before": 0}, "line 11, probe_before: "),
        ({"probe_before": float("nan")}, "line 11, probe_before: "),
        ({"I_A": [1]}, "line 11, I_A: not one value for each layer"),
        ({"kept_A": [None, 1]}, "line 11, kept_A.0: "),
        ({"norm_ratio_B": [1.0, float("inf")]}, "line 11, norm_ratio_B.1: "),
    ],
)
def test_a_record_of_another_kind_is_named_with_its_line(adapter, change, said):
    file = adapter / "history.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[10])["event"] == "restart"
    lines[10] = json.dumps(json.loads(lines[10]) | change)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    refused(said)
    del lines[10]
    lines[3] = json.dumps({"event": "epoch", "epoch": 4})
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    refused("line 4, loss: ")


@pytest.mark.parametrize(
    ("name", "key"), [("pytorch_lora_weights", "unet.mid_block.q.lora_A.weight"), ("restarts", "values")]
)
def test_tensors_that_are_not_finite_or_cut(adapter, name, key):
    file = adapter / f"{name}.safetensors"
    tensors, whole = load_file(file), file.read_bytes()
    tensors[key].view(-1)[0] = float("nan")
    save_tensors(file, tensors)
    refused("is not finite")
    file.write_bytes(whole[:-3])
    if name == "restarts":
        refused("is no whole safetensors file")


def test_restarts_of_another_training(adapter):
    for tensors in ({"values": torch.ones(2, 2, 2, 3)}, {"values": torch.ones(3)}, {"other": torch.ones(1)}):
        save_tensors(adapter / "restarts.safetensors", tensors)
        refused("restarts.safetensors is damaged")


def test_weights_of_another_training(adapter):
    file = adapter / "pytorch_lora_weights.safetensors"
    pair = torch.ones(3, 9), torch.ones(7, 3)
    save_diffusers(file, {LAYERS[0]: pair}, {})
    refused("does not have adapter.json's layers .*mid_block.k")
    save_diffusers(file, {LAYERS[0]: pair, LAYERS[1]: (torch.ones(2, 9), torch.ones(7, 2))}, {})
    refused("has not one rank in all layers")

"""A method and a model family from outside the package, examples/, work as those inside it do."""

import re
import shutil
import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from aclora.core.errors import InputError
from aclora.core.method import method_named
from aclora.lora.export import save_diffusers
from aclora.lora.tuner import matching
from aclora.models.sampling import load_adapter
from aclora.training.loop import Encoded, TrainConfig, fit, fixed_loss
from tests.conftest import ROOT, model_at, section

METHOD, FAMILY = "examples.lora_fa", "examples.feed_forward"
SECTION = "examples:\n  lora_fa:\n    # What is the rank?\n    rank: {rank}\n"
PROMPTS = ["a red house", "a blue boat"]


def attach(model, rank):
    torch.manual_seed(0)
    kind = method_named(METHOD)
    method = kind(kind.config_type(rank=rank))
    return method, method.attach(model.network, model.adapter_layers)


def check(folder, rank):
    """`aclora check` of a project that names both by their modules."""
    for name in ("data", "examples", "miniature", "models", "params.schema.json"):
        (folder / name).symlink_to(ROOT / name)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for knob, name in (("method", METHOD), ("  family", FAMILY)):
        text, hits = re.subn(rf"(?m)^{knob}: .*", f"{knob}: {name}", text)
        assert hits == 1
    (folder / "params.yaml").write_text(text + SECTION.format(rank=rank), encoding="utf-8")
    command = [shutil.which("aclora", path=str(sys.prefix) + "/bin"), "check"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_check_finds_both_by_their_modules(tmp_path):
    done = check(tmp_path, rank=4)
    assert done.returncode == 0, done.stderr
    assert f"; {METHOD}, " in done.stdout


def test_check_names_a_knob_of_a_method_from_outside(tmp_path):
    done = check(tmp_path, rank=0)
    assert done.returncode == 1
    assert done.stderr == "error: params.yaml: examples.lora_fa.rank = 0: must be at least 1\n"


def test_the_adapter_reaches_both_layers_of_each_feed_forward_network(tiny_folder):
    model, plain = model_at(tiny_folder, FAMILY), model_at(tiny_folder)
    added = set(matching(model.network, model.adapter_layers)) - set(matching(plain.network, plain.adapter_layers))
    blocks = [n for n, _ in plain.network.named_modules() if n.endswith(".ff")]
    assert blocks
    assert added == {f"{block}.net.{layer}" for block in blocks for layer in ("0.proj", "2")}


def test_both_train_together_and_the_stock_family_loads_the_file(tiny_folder, tmp_path):
    model = model_at(tiny_folder, FAMILY)
    pictures = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    data = Encoded(*model.encode_pictures(pictures, 16), model.encode_prompts(PROMPTS, 16))
    before = fixed_loss(model, data)
    method, parameters = attach(model, rank=4)
    drawn = {name: a.clone() for name, (a, _) in method.factors().items()}
    assert fixed_loss(model, data) == before
    config = section("train", TrainConfig, epochs=6, batch_size=2, learning_rate=1e-2)
    records = list(fit(model, data, method, parameters, config, Accelerator(cpu=True)))
    assert [r["event"] for r in records] == ["epoch"] * 6
    after = fixed_loss(model, data)
    assert after < before
    for name, (a, b) in method.factors().items():
        assert torch.equal(a, drawn[name])
        assert b.abs().max() > 0, name

    save_diffusers(tmp_path / "adapter.safetensors", method.factors(), {})
    stock = model_at(tiny_folder)
    load_adapter(stock, tmp_path / "adapter.safetensors")
    assert fixed_loss(stock, data) == after


def test_a_rank_that_is_too_high_names_the_knob_with_its_section(tiny):
    with pytest.raises(InputError, match=rf"^{METHOD}.rank = 40: must be at most 32, .*attn1.to_q"):
        attach(tiny, rank=40)

"""The stages on a Stable Diffusion 3: trained, looked into, drawn with and exported, as params.yaml names it."""

import json
import os
import shutil

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from aclora.core.errors import InputError
from aclora.data.pictures import read_picture
from aclora.lora.export import write
from aclora.lora.files import read
from stages import audit, caption, evaluate, generate, train
from tests.conftest import ROOT, model_at

UMASK = os.umask(0)
os.umask(UMASK)
COLOURS = ("red", "green", "blue", "white")
CHANGES = {
    "epochs": 4,
    "restart_every": 2,
    "max_rank": 6,
    "rank": 3,
    "images_per_prompt": 1,
    "num_inference_steps": 2,
    "prompts": "prompts.txt",
    "family": "stable_diffusion_3",
    "pictures": "pictures",
}


@pytest.fixture
def project(tmp_path, monkeypatch, tiny_sd3_folder):
    """A DVC project of this code with four pictures and the tiny model; a way to set knobs in its params.yaml."""
    for name in ("src", "stages", "miniature", "models/miniature", "data/styles"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n  no_scm = true\n  analytics = false\n", encoding="utf-8")
    (tmp_path / "prompts.txt").write_text("a red house\na blue boat\n", encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    for i, colour in enumerate(COLOURS):
        Image.new("RGB", (20, 16), colour).save(tmp_path / f"pictures/{i}.png")
        (tmp_path / f"pictures/{i}.txt").write_text(f"a {colour} house", encoding="utf-8")

    def set_knobs(**knobs):
        lines = (ROOT / "params.yaml").read_text(encoding="utf-8").split("\n")
        for i, line in enumerate(lines):
            knob = line.strip().partition(":")[0]
            if knob in CHANGES | knobs:
                lines[i] = line.replace(line.strip(), f"{knob}: {(CHANGES | knobs)[knob]}")
        text = "\n".join(lines).replace("models/miniature/pipeline", str(tiny_sd3_folder))
        (tmp_path / "params.yaml").write_text(text, encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACLORA_TRACKING", "off")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield set_knobs
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.parametrize("method", ["aclora", "lora"])
def test_stable_diffusion_3_goes_through_every_stage(project, tmp_path, method):
    project(method=method)
    for stage in (caption, train, audit, generate):
        stage.main("watercolor")
    adapter = tmp_path / "models/adapters/watercolor"
    assert {oct(f.stat().st_mode & 0o777) for f in adapter.iterdir()} == {oct(0o666 & ~UMASK)}
    about = json.loads((adapter / "adapter.json").read_text())
    assert (about["method"], about["pictures"], about["size"]) == (method, 4, 16)
    assert all(layer.startswith("transformer_blocks.") for layer in about["layers"])
    weights = adapter / "pytorch_lora_weights.safetensors"
    with safe_open(weights, "pt") as file:
        assert file.metadata().items() >= {"method": method, "style": "watercolor"}.items()
    found = read(weights)
    assert list(found.factors) == sorted(about["layers"])
    assert {len(a) for a, _ in found.factors.values()} == {6 if method == "aclora" else 3}
    history = [json.loads(line)["event"] for line in (adapter / "history.jsonl").read_text().splitlines()]
    assert history.count("restart") == (method == "aclora")
    assert (adapter / "signal.safetensors").exists() == (method == "aclora")
    assert json.loads((tmp_path / "metrics/watercolor/audit.json").read_text())["epochs"] == 4
    drawn = tmp_path / "data/generated/watercolor"
    base, own = (read_picture(drawn / kind / "0000.png") for kind in ("base", "adapter"))
    assert base.size == own.size == (16, 16)
    assert base.tobytes() != own.tobytes()


def test_the_pipelines_own_loader_draws_the_same_pictures(project, tmp_path, tiny_sd3_folder):
    """diffusers' and PEFT's formats of what the stages wrote, read by diffusers and by PEFT themselves."""
    project(method="lora", without_trigger=0)
    for stage in (caption, train, generate):
        stage.main("watercolor")
    source = tmp_path / "models/adapters/watercolor/pytorch_lora_weights.safetensors"
    rows = (tmp_path / "data/generated/watercolor/prompts.jsonl").read_text().splitlines()
    row = json.loads(rows[0])
    expected = read_picture(tmp_path / "data/generated/watercolor/adapter" / row["file"])
    found = read(source)
    write(tmp_path / "again.safetensors", found.factors, found.header, "diffusers")
    assert (tmp_path / "again.safetensors").read_bytes() == source.read_bytes()
    write(tmp_path / "peft", found.factors, found.header, "peft")
    assert set(load_file(tmp_path / "peft/adapter_model.safetensors")) == {
        f"base_model.model.{layer}.lora_{x}.weight" for layer in found.factors for x in "AB"
    }
    for form in ("diffusers", "peft"):
        model = model_at(tiny_sd3_folder, "stable_diffusion_3")
        if form == "diffusers":
            model.pipe.load_lora_weights(tmp_path / "again.safetensors")
        else:
            from peft import PeftModel

            PeftModel.from_pretrained(model.network, tmp_path / "peft")
        generators = [torch.Generator().manual_seed(seed) for seed in (row["seed"], row["seed"] + 1)]
        prompts = [json.loads(r)["prompt"] for r in rows]
        (picture, _) = model.sample(prompts, generators, 16, 2, 4.0)
        assert picture.tobytes() == expected.tobytes(), form


def test_an_adapter_of_the_family_before_is_refused_by_the_stage(project, tmp_path):
    project(method="lora")
    for stage in (caption, train):
        stage.main("watercolor")
    weights = tmp_path / "models/adapters/watercolor/pytorch_lora_weights.safetensors"
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    write(weights, {layer: (torch.ones(2, 32), torch.ones(32, 2))}, {}, "diffusers")
    with pytest.raises(InputError, match=rf"unet.{layer} has no place in the transformer"):
        generate.main("watercolor")
    weights.unlink()
    with pytest.raises(InputError, match=r"pytorch_lora_weights.safetensors is missing: `dvc checkout --force"):
        generate.main("watercolor")
    about = weights.with_name("adapter.json")
    about.write_bytes(about.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"adapter.json is damaged \(line \d+\): `dvc checkout --force"):
        generate.main("watercolor")
    assert not (tmp_path / "data/generated/watercolor").exists()


LONG = ", ".join(["a red house on the left and a big blue boat on the right with a yellow star in the middle"] * 2)


def test_the_trigger_of_a_long_caption_and_prompt_survives(project, tmp_path, capsys):
    project(method="lora", epochs=1)
    (tmp_path / "pictures/2.txt").write_text(LONG, encoding="utf-8")
    (tmp_path / "prompts.txt").write_text(f"a red house\n{LONG}\n", encoding="utf-8")
    caption.main("watercolor")
    capsys.readouterr()
    train.main("watercolor")
    about = json.loads((tmp_path / "models/adapters/watercolor/adapter.json").read_text())
    (lost,) = about["shortened"].values()
    assert list(about["shortened"]) == ["2.png"]
    assert LONG.endswith(lost)
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [f"note: 2.png: it is cut before the trigger, for the model reads 32 tokens; lost: {lost!r}"]
    generate.main("watercolor")
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert [("cut before the trigger" in note, "its end is not seen" in note) for note in notes] == [
        (True, False),
        (False, True),
    ]
    drawn = tmp_path / "data/generated/watercolor"
    rows, plain = (
        [json.loads(line)["prompt"] for line in file.read_text().splitlines()]
        for file in (drawn / "prompts.jsonl", drawn / "without_trigger/prompts.jsonl")
    )
    assert rows == ["a red house, zxq style", f"{LONG.removesuffix(lost).strip()}, zxq style"]
    assert plain == ["a red house", LONG]


def test_captions_that_fit_leave_no_trace(project, tmp_path, capsys):
    project(method="base")
    caption.main("watercolor")
    train.main("watercolor")
    assert "shortened" not in json.loads((tmp_path / "models/adapters/watercolor/adapter.json").read_text())
    assert "note: " not in capsys.readouterr().out


def test_a_trigger_that_no_encoder_reads_stops_the_training(project, tmp_path):
    project(method="lora", trigger="q" * 40)
    caption.main("watercolor")
    with pytest.raises(InputError, match=r"^styles.watercolor.trigger = 'q+': must be at most 32 tokens"):
        train.main("watercolor")
    assert not (tmp_path / "models/adapters").exists() or not list((tmp_path / "models/adapters").iterdir())


@pytest.mark.parametrize(
    ("stage", "place"),
    [
        (caption, "data/captions"),
        (train, "models/adapters"),
        (train, ".cache/training"),
        (generate, "data/generated"),
        (generate, "metrics"),
        (evaluate, "metrics"),
        (evaluate, ".cache/features"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_out_that_cannot_be_written_is_found_before_the_work(project, tmp_path, stage, place):
    """The model is named and is not there: whoever had begun would have found that instead."""
    project(method="lora")
    if stage is not caption:
        caption.main("watercolor")
    if stage is generate:
        (tmp_path / "models/adapters/watercolor").mkdir(parents=True)
        (tmp_path / "models/adapters/watercolor/adapter.json").write_text(
            '{"layers": [], "method": "base", "size": 16}'
        )
    shutil.rmtree(tmp_path / place, ignore_errors=True)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("in the way")
    text = (tmp_path / "params.yaml").read_text(encoding="utf-8")
    family = text.replace("family: stable_diffusion_3", "family: stable_diffusion")
    (tmp_path / "params.yaml").write_text(family, encoding="utf-8")
    with pytest.raises(InputError, match=rf"{place}.* cannot be written \(.*\): give this user the right"):
        stage.main("watercolor")
    assert (tmp_path / place).read_text() == "in the way"


def test_captions_by_a_captioner_that_knows_little_are_said_once(project, tmp_path, capsys):
    project()
    for i in (0, 1):
        (tmp_path / f"pictures/{i}.txt").unlink()
    caption.main("watercolor")
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: captions of 2 pictures are by models/miniature/captioner, which was trained on drawings of a small "
        "world alone: of other pictures it may say what they do not show; read them before you train"
    ]
    for i in (0, 1):
        (tmp_path / f"pictures/{i}.txt").write_text("a red house")
    caption.main("watercolor")
    assert "note: " not in capsys.readouterr().out

"""`aclora check` names what would stop a run, and reads no network for it."""

import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from aclora.check.project import check
from aclora.core.errors import InputError
from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The project's parameters and pictures, its models as links; a way to change lines of params.yaml."""
    folder = tmp_path / "project"
    (folder / "models").mkdir(parents=True)
    for name in ("params.yaml", "params.schema.json"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "data", folder / "data", ignore=shutil.ignore_patterns("generated", "captions"))
    (folder / "miniature").symlink_to(ROOT / "miniature")
    (folder / "models/miniature").symlink_to(ROOT / "models/miniature")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


def edit(folder, **lines):
    """Give each knob, named section__knob, another value."""
    file = folder / "params.yaml"
    text = file.read_text(encoding="utf-8")
    for knob, value in lines.items():
        section, _, name = knob.partition("__")
        pattern = rf"(?ms)^({section}:(?:\n[ #][^\n]*)*?\n +{name}:) [^\n]*" if name else rf"(?m)^({section}:) .*"
        text, hits = re.subn(pattern, rf"\1 {value}", text)
        assert hits == 1, knob
    file.write_text(text, encoding="utf-8")


def copy_network(folder, name, without=()):
    """A copy of one of the miniature's networks that lacks some files; its path in the project."""
    shutil.copytree(ROOT / "models/miniature" / name, folder / "mine" / name, ignore=shutil.ignore_patterns(*without))
    return f"mine/{name}"


def test_the_default_project_passes(project):
    said = check()
    assert said.lines == ["watercolor: 12 pictures, 0 captions to be written; aclora, 140 epochs; 32 prompts"]
    assert said.warnings == []


def test_one_style_can_be_looked_at(project):
    text = (project / "params.yaml").read_text(encoding="utf-8")
    entry = "  vangogh: {pictures: data/styles/vangogh, trigger: vgx, reference: data/styles/vangogh}\n"
    (project / "params.yaml").write_text(text.replace("\nstyles:\n", f"\nstyles:\n{entry}"), encoding="utf-8")
    assert len(check(["watercolor"]).lines) == 1
    with pytest.raises(InputError, match="data/styles/vangogh"):
        check()
    with pytest.raises(InputError, match="style 'watercolour' is unknown; did you mean 'watercolor'"):
        check(["watercolour"])


def test_servers_are_left_alone_and_known_networks_too():
    code = "import sys; from aclora.check.project import check; check(); print(*sys.modules)"
    for unused in ({"mlflow", "prefect"}, {"mlflow", "prefect", "peft", "accelerate"}):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        loaded = set(done.stdout.splitlines()[-1].split())
        assert not loaded & unused


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        (
            {"evaluate__clip": "models/none"},
            "evaluate.clip = 'models/none': no such folder; of a hub name give the commit",
        ),
        ({"evaluate__clip": "./none"}, "evaluate.clip = './none': no such folder, and not a hub name"),
        (
            {"evaluate__clip": "clip"},
            "evaluate.clip = 'clip': no such folder, and not a hub name (owner/name@commit); name one of these, or set",
        ),
        (
            {"evaluate__dino": "data/styles/oil", "evaluate__watch": "."},
            "evaluate.dino = 'data/styles/oil': the folder holds no",
        ),
        ({"evaluate__fid": "3"}, "params.yaml: evaluate.fid = 3: must be a text or null"),
        (
            {"evaluate__figures": "[miniature.jugding]"},
            "evaluate.figures = 'miniature.jugding': there is no such module",
        ),
        ({"evaluate__watch_figures": "none.py"}, "evaluate.watch_figures = 'none.py': no such folder or file"),
        ({"evaluate__watch": "models/adapters"}, "evaluate.watch = 'models/adapters': must be a folder that holds fid"),
        ({"evaluate__held_out": "1"}, "params.yaml: evaluate.held_out = 1: must be between 2 and"),
        ({"evaluate__reference": "traning"}, "evaluate.reference = 'traning': must be one of held_out, training"),
        ({"checkpoints__every": "0"}, "params.yaml: checkpoints.every = 0: must be between 1 and"),
        (
            {"train__resolution": "12"},
            "train.resolution = 12: must be a multiple of 8, at most 256 (the model's own size",
        ),
        ({"train__resolution": "264"}, "train.resolution = 264: must be a multiple of 8, at most 256"),
        ({"train__resolution": "100000"}, "params.yaml: train.resolution = 100000: must be between 8 and 8192 pixels"),
        ({"train__seed": "4294967296"}, "params.yaml: train.seed = 4294967296: must be between 0 and 4294967295"),
        ({"data__seed": "-1"}, "params.yaml: data.seed = -1: must be between 0 and 4294967295"),
        ({"generate__seed": "18446744073709551616"}, "generate.seed = 18446744073709551616: must be between 0 and"),
        ({"generate__num_inference_steps": "5000"}, "generate.num_inference_steps = 5000: must be between 1 and 1000"),
        ({"generate__guidance_scale": ".inf"}, "params.yaml: generate.guidance_scale = inf: must be"),
        ({"aclora__max_rank": "65"}, "aclora.max_rank = 65: must be at most 64, the smaller side of layer"),
        ({"lora__rank": "65", "method": "lora"}, "lora.rank = 65: must be at most 64"),
        ({"trilora__rank": "65", "method": "trilora"}, "trilora.rank = 65: must be at most 64"),
        ({"styles__pictures": "''"}, "styles.watercolor.pictures = '': must be a text that is not empty"),
        ({"styles__trigger": "'...'"}, "styles.watercolor.trigger = '...': must be words that call the style"),
        ({"data__share": "2"}, "params.yaml: data.share = 2: must be between 0 and 1"),
        ({"data__limit": "13"}, "data.limit = 13: must be at most 12, the style's pictures"),
        ({"data__corrupt": "foreign", "data__foreign": "none"}, "data.foreign = 'none': must be a folder of captioned"),
        ({"data__foreign": "none"}, "data.foreign = 'none': no such folder or file; DVC needs one"),
        ({"train__epochs": "many"}, "params.yaml: train.epochs = 'many': must be a whole number"),
        ({"train__feature_network": "dnio"}, "train.feature_network = 'dnio' is unknown; did you mean 'dino'?"),
        (
            {"train__feature_loss": "1", "train__feature_encoder": "dino"},
            "train.feature_encoder = 'dino': no such folder",
        ),
        ({"train__watch": "none"}, "train.watch = 'none': must be the feature encoder's folder"),
        ({"model__name": "nowhere"}, "model.name = 'nowhere': no such folder, and not a hub name"),
        (
            {"model__name": "data", "model__watch": "data"},
            "model.name = 'data' cannot be loaded: data/model_index.json is missing",
        ),
        (
            {"model__family": "stable_difusion"},
            "model.family = 'stable_difusion' is unknown; did you mean 'stable_diff",
        ),
        (
            {"model__family": "stable_diffusion_3"},
            "model.family = 'stable_diffusion_3': must be another, for model.name",
        ),
        ({"model__name": "owner/model"}, "model.revision is missing: give the commit of owner/model"),
        ({"captions__watch": "none"}, "captions.watch = 'none': must be the captioner's folder"),
        ({"captions__max_new_tokens": "0"}, "params.yaml: captions.max_new_tokens = 0: must be between 1 and"),
        ({"audit__loss_rise": "1"}, "params.yaml: audit.loss_rise = 1: must be above 1"),
        ({"generate__prompts": "none.txt"}, "generate.prompts = 'none.txt': no such file"),
        (
            {"generate__adapter": "signal", "method": "lora"},
            "generate.adapter = 'signal': must be trained: the method lora",
        ),
        ({"aclora__max_rank": "1"}, "params.yaml: aclora.max_rank = 1: must be at least 2, or nothing could be noise"),
        ({"dora__rank": "0"}, "params.yaml: dora.rank = 0: must be at least 1"),
        ({"method": "lroa"}, "method = 'lroa' is unknown; did you mean 'lora'?"),
        ({"styles__reference": "none"}, "styles.watercolor.reference = 'none': no such folder; name one"),
        ({"styles__pictures": "data/nowhere"}, "data/nowhere is not a folder"),
        ({"styles__trigger": "' '"}, "styles.watercolor.trigger = ' ': must be a text that is not empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_knob_is_named(project, knobs, said):
    edit(project, **knobs)
    with pytest.raises(InputError) as error:
        check()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "knobs",
    [
        {"evaluate__clip": "openai/clip-vit-base-patch32@3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"},
        {"evaluate__fid": "null", "evaluate__clip": "null", "evaluate__judge": "null", "evaluate__figures": "[]"},
        {"train__feature_loss": "0.5"},
        {"train__feature_encoder": "anything"},  # no run reads it: feature_loss is 0
        {"generate__adapter": "signal"},
        {"generate__adapter": "signal", "method": "base"},
        {"data__corrupt": "foreign"},
        {"evaluate__reference": "training"},
        {"styles__reference": "data/styles/oil"},
    ],
    ids=lambda value: " ".join(value),
)
def test_what_a_run_accepts_passes(project, knobs):
    edit(project, **knobs)
    check()


@pytest.mark.parametrize(
    ("knob", "name", "gone", "said"),
    [
        (
            "evaluate__clip",
            "clip",
            "tokenizer.json",
            "evaluate.clip = 'mine/clip': the folder lacks tokenizer.json or vocab",
        ),
        ("evaluate__dino", "dino", "model.safetensors", "evaluate.dino = 'mine/dino': the folder holds no weights"),
        ("evaluate__judge", "judge", "config.json", "evaluate.judge = 'mine/judge': the folder lacks config.json"),
        (
            "evaluate__image_reward",
            "reward",
            "tokenizer.json",
            "evaluate.image_reward = 'mine/reward': the folder lacks",
        ),
        (
            "train__feature_encoder",
            "dino",
            "config.json",
            "train.feature_encoder = 'mine/dino': the folder lacks config",
        ),
        (
            "model__name",
            "pipeline",
            "model_index.json",
            "model.name = 'mine/pipeline' cannot be loaded: pipeline/model_index.json is missing",
        ),
        (
            "model__name",
            "pipeline",
            "vae",
            "model.name = 'mine/pipeline' cannot be loaded: the folder vae, which its model_",
        ),
    ],
    ids=lambda value: value.replace("/", " ") if isinstance(value, str) else "",
)
def test_a_network_that_lacks_a_file_is_named(project, knob, name, gone, said):
    place, section = copy_network(project, name, [gone]), knob.partition("__")[0]
    watch = {} if section == "evaluate" else {f"{section}__watch": place}
    edit(project, **{knob: place, "train__feature_loss": "1", "evaluate__watch": "."} | watch)
    with pytest.raises(InputError) as error:
        check()
    assert said in str(error.value)


def test_a_captioner_is_looked_at_where_a_caption_is_missing(project):
    place = copy_network(project, "captioner", ["tokenizer.json"])
    edit(project, captions__model=place, captions__watch=place)
    check()
    (project / "data/styles/watercolor/03.txt").unlink()
    with pytest.raises(
        InputError,
        match=r"captions.model = 'mine/captioner' cannot be loaded: captioner/ lacks a vocabulary: tokenizer.json",
    ):
        check()
    edit(project, captions__model="models/miniature/captioner", captions__watch="models/miniature/captioner")
    assert "12 pictures, 1 captions to be written by models/miniature/captioner;" in check().lines[0]


def test_pictures_of_the_style_and_its_reference_are_read(project):
    others = project / "data/others"
    others.mkdir()
    Image.new("RGB", (20, 20)).save(others / "1.png")
    edit(project, styles__reference="data/others")
    with pytest.raises(InputError, match=r"data/others holds one picture; to compare with, at least 2 are needed"):
        check()
    (others / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nnot")
    with pytest.raises(InputError, match=r"others/2.png is not a readable picture"):
        check()


def test_a_style_that_cannot_be_drawn_is_named(project):
    file = project / "params.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("  watercolor:\n", "  watercolour:\n"), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"watercolour.reference = .* does not draw this style: .* did you mean 'waterc"
    ):
        check()


def test_a_missing_knob_is_named_with_its_question(project):
    file = project / "params.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("\n  epochs: 140", ""), encoding="utf-8")
    with pytest.raises(InputError, match=r"train.epochs is missing: How many times is each picture seen\? Epochs, at"):
        check()

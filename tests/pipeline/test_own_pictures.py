"""Pictures as people have them go through every stage: large, turned, of many kinds, each decoded in full once."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from aclora.core.errors import InputError
from aclora.data import pictures
from aclora.data.pictures import read_picture
from stages import caption, check_style, evaluate, generate, train
from tests.conftest import ROOT

KNOBS = {
    "epochs": 1,
    "method": "lora",
    "rank": 2,
    "images_per_prompt": 2,
    "num_inference_steps": 2,
    "prompts": "prompts.txt",
    "pictures": "pictures",
    "reference": "held_out",
    "fid": "null",
    "clip": "null",
    "image_reward": "null",
    "judge": "null",
    "figures": "[]",
}


def noise(width, height, seed):
    small = np.random.default_rng(seed).integers(0, 256, (height // 20, width // 20, 3), np.uint8)
    return Image.fromarray(small).resize((width, height))


@pytest.fixture
def project(tmp_path, monkeypatch, tiny_folder):
    """A DVC project of this code with a tiny model, and two large and two odd pictures; a way to set its knobs."""
    for name in ("src", "stages", "miniature", "models/miniature", "data/styles"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n  no_scm = true\n  analytics = false\n", encoding="utf-8")
    (tmp_path / "prompts.txt").write_text("a red house\na blue boat\n", encoding="utf-8")
    for folder in ("pictures", "held_out"):
        (tmp_path / folder).mkdir()
        for i in range(2):
            exif = Image.Exif()
            exif[0x0112] = 6
            noise(2400, 1800, i + 10 * len(folder)).save(tmp_path / folder / f"{i}.JPG", exif=exif)
    Image.fromarray(np.linspace(0, 65535, 900).reshape(30, 30).astype(np.uint16)).save(tmp_path / "pictures/2.png")
    noise(60, 40, 3).convert("RGBA").save(tmp_path / "pictures/3.gif")
    for i in range(4):
        (tmp_path / f"pictures/{i}.txt").write_text(f"a house {i}", encoding="utf-8")

    def set_knobs(**knobs):
        text = (ROOT / "params.yaml").read_text(encoding="utf-8")
        text = text.replace("models/miniature/pipeline", str(tiny_folder))
        for knob, value in (KNOBS | knobs).items():
            text = re.sub(rf"(?m)^( *{knob}:) .*", rf"\1 {value}", text)
        (tmp_path / "params.yaml").write_text(text, encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACLORA_TRACKING", "off")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic = torch.are_deterministic_algorithms_enabled()
    set_knobs()
    yield set_knobs
    torch.use_deterministic_algorithms(deterministic)


def test_each_large_picture_is_decoded_in_full_once(project, monkeypatch, capsys):
    seen, own = [], pictures.decode
    monkeypatch.setattr(pictures, "decode", lambda file, *draft: seen.append((str(file), *draft)) or own(file, *draft))
    for stage in (check_style, caption, train, generate, evaluate):
        stage.main("watercolor")
    for file in ("pictures/0.JPG", "pictures/1.JPG"):
        assert [draft for name, *draft in seen if name == file] == [[pictures.DRAFT], []]
    caption.main("watercolor")
    assert [name for name, *_ in seen].count("pictures/0.JPG") == 2
    said = capsys.readouterr().out
    assert "warning: pictures: turned as EXIF says: 2 pictures (the first: 0.JPG)\n" in said
    assert "warning: pictures: scaled to 8 bits: 2.png\n" in said


@pytest.mark.parametrize("corrupt", ["noise", "foreign", "captions", "adversarial"])
def test_corruption_takes_pictures_of_every_size(project, tmp_path, corrupt):
    project(corrupt=corrupt, foreign="pictures", share=0.5)
    for stage in (caption, train):
        stage.main("watercolor")
    about = json.loads((tmp_path / "models/adapters/watercolor/adapter.json").read_text())
    assert (about["pictures"], len(about["corrupted"])) == (4, 2)


def test_an_unreadable_picture_is_found_before_pictures_are_generated(project, tmp_path, monkeypatch):
    for stage in (caption, train):
        stage.main("watercolor")
    (tmp_path / "pictures/3.gif").write_bytes(b"GIF89a")
    monkeypatch.setattr(generate, "load_model", lambda config: pytest.fail("the model was loaded"))
    with pytest.raises(InputError, match=r"3.gif is not a readable picture"):
        generate.main("watercolor")


@pytest.fixture
def generated(project, tmp_path):
    """Generated pictures as the generate stage leaves them."""
    for folder in ("", "without_trigger/"):
        place = tmp_path / "data/generated/watercolor" / folder
        for kind in ("adapter", "base"):
            (place / kind).mkdir(parents=True)
            for i in range(4):
                noise(40, 40, i).save(place / kind / f"{i:04}.png")
        rows = [{"file": f"{i:04}.png", "prompt": f"a house {i // 2}", "seed": i} for i in range(4)]
        (place / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data/generated/watercolor"


def evaluation(tmp_path):
    return json.loads((tmp_path / "metrics/watercolor/evaluation.json").read_text())


def test_pictures_that_show_something_are_not_spoken_of(generated, tmp_path, capsys):
    evaluate.main("watercolor")
    assert list(evaluation(tmp_path)) == ["reference", "counts", "figures"]
    assert "one colour" not in capsys.readouterr().out


def test_some_pictures_of_one_colour_are_counted(generated, tmp_path, capsys):
    for name in ("adapter/0001.png", "adapter/0003.png", "without_trigger/base/0002.png"):
        Image.new("RGB", (40, 40), (3, 2, 1)).save(generated / name)
    evaluate.main("watercolor")
    assert evaluation(tmp_path)["one_colour"] == {"adapter": 2, "plain_base": 1}
    said = capsys.readouterr().out
    where = "data/generated/watercolor"
    assert f"warning: 2 of 4 pictures are of one colour each; the first: {where}/adapter/0001.png\n" in said
    assert (
        f"warning: 1 of 4 pictures are of one colour each; the first: {where}/without_trigger/base/0002.png\n" in said
    )


def test_an_adapter_that_draws_nothing_has_no_scores(generated, tmp_path):
    for file in (generated / "adapter").iterdir():
        Image.new("RGB", (40, 40), "black").save(file)
    with pytest.raises(
        InputError, match=r"adapter: all 4 pictures are of one colour each, .* lower train.learning_rate"
    ):
        evaluate.main("watercolor")
    assert not (tmp_path / "metrics/watercolor/scores.json").exists()


def test_a_reference_of_telephone_pictures_is_upright(project, tmp_path):
    assert read_picture(tmp_path / "held_out/0.JPG").size == (1800, 2400)

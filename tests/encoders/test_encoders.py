"""What each network sees, against transformers called directly on pictures resized by hand; broken folders."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer, Dinov2Config, Dinov2Model, ViTModel

from aclora.core.errors import InputError
from aclora.core.hub import quieten
from aclora.encoders.clip import Clip
from aclora.encoders.contract import digest
from aclora.encoders.dino import IMAGENET, Dino, processor_of
from miniature.judging.encoder import Judge
from tests.conftest import ROOT

STD = [0.229, 0.224, 0.225]
MINIATURE = ROOT / "models/miniature"
KINDS = {"clip": Clip, "dino": Dino, "judge": Judge}
quieten()


def noise(w, h, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8))


def pixels(picture, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)):
    values = (np.asarray(picture) / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(values).permute(2, 0, 1)[None].float()


@pytest.fixture(scope="module")
def clip():
    return Clip.from_pretrained(MINIATURE / "clip"), CLIPModel.from_pretrained(MINIATURE / "clip", dtype=torch.float32)


@torch.no_grad()
def test_clip_sees_the_middle_of_a_picture(clip):
    ours, direct = clip
    wide = noise(96, 80)
    seen = wide.resize((76, 64), Image.Resampling.BICUBIC).crop((6, 0, 70, 64))
    expected = direct.visual_projection(direct.vision_model(pixel_values=pixels(seen)).pooler_output)
    torch.testing.assert_close(ours.look([wide]), expected, rtol=1e-4, atol=1e-5)
    assert expected.norm() > 1.5  # they are not of length 1, and ours are left so


@torch.no_grad()
def test_clip_reads_prompts_whatever_stands_beside_them(clip):
    ours, direct = clip
    words = CLIPTokenizer.from_pretrained(MINIATURE / "clip")
    prompts = ["a red house", "a small yellow car on the left in the snow"]
    for prompt, row in zip(prompts, ours.read(prompts), strict=True):
        ids = words(prompt, return_tensors="pt").input_ids  # without padding
        expected = direct.text_projection(direct.text_model(input_ids=ids).pooler_output)[0]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.read(prompts, batch=1), ours.read(prompts))


@torch.no_grad()
def test_a_prompt_longer_than_clips_tokens_is_cut(clip):
    ours, direct = clip
    long = "a red house " * 20
    ids = CLIPTokenizer.from_pretrained(MINIATURE / "clip")(long).input_ids
    assert len(ids) > 32
    expected = direct.text_projection(direct.text_model(torch.tensor([[*ids[:31], ids[-1]]])).pooler_output)
    torch.testing.assert_close(ours.read([long]), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_dino_is_cls_after_the_last_layer_of_the_whole_picture():
    folder = MINIATURE / "dino"
    direct = ViTModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
    wide = noise(100, 50)
    squashed = wide.resize((64, 64), Image.Resampling.BILINEAR)
    expected = direct(pixels(squashed)).last_hidden_state[:, 0]
    torch.testing.assert_close(Dino.from_pretrained(folder).look([wide]), expected, rtol=1e-4, atol=1e-5)


def preprocessor(folder, **said):
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": IMAGENET, "image_std": STD} | said))


def test_a_public_dinos_pictures_are_cropped_and_not_squashed(tmp_path):
    preprocessor(tmp_path, size=224, image_processor_type="ViTFeatureExtractor", resample=2)
    picture = noise(600, 400)
    seen = picture.resize((384, 256), Image.Resampling.BICUBIC).crop((80, 16, 304, 240))
    got = processor_of(tmp_path, 224)([picture], return_tensors="pt").pixel_values
    torch.testing.assert_close(got, pixels(seen, [0.485, 0.456, 0.406], STD), rtol=0, atol=1e-5)


@torch.no_grad()
def test_dinov2_looks_as_its_own_file_says(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14, "image_size": 70}
    torch.manual_seed(0)
    direct = Dinov2Model(Dinov2Config(**sizes)).eval()
    direct.save_pretrained(tmp_path)
    said = {"size": {"shortest_edge": 48}, "crop_size": {"height": 42, "width": 42}, "resample": 3}
    preprocessor(tmp_path, image_processor_type="BitImageProcessor", do_center_crop=True, **said)
    seen = noise(96, 48).crop((27, 3, 69, 45))
    expected = direct(pixels(seen, IMAGENET, STD)).last_hidden_state[:, 0]
    torch.testing.assert_close(Dino.from_pretrained(tmp_path).look([noise(96, 48)]), expected, rtol=1e-4, atol=1e-5)


VOCABULARY = {"objects": ["house", "tree"], "colours": ["red", "blue", "green"], "sides": ["left", "right"]}
VOCABULARY |= {"backgrounds": ["at sea"], "styles": ["plain", "oil"]}


def judge(seed=0):
    torch.manual_seed(seed)
    return Judge(VOCABULARY, size=32, width=16).eval()


def test_a_judge_comes_back_from_its_folder_and_no_other(tmp_path):
    made = judge()
    made.feature_scale = 0.25
    made.save_pretrained(tmp_path / "judge")
    loaded = Judge.from_pretrained(tmp_path / "judge")
    picture = [noise(50, 50)]
    for key, value in made.look(picture).items():
        torch.testing.assert_close(loaded.look(picture)[key], value, rtol=0.02, atol=0.02)
    assert loaded.vocabulary == VOCABULARY
    plain = judge().look(picture)["features"]
    torch.testing.assert_close(made.look(picture)["features"], plain / 4)
    (tmp_path / "judge/model.safetensors").unlink()
    with pytest.raises(InputError, match=r"evaluate.judge = .*no judge there; it is models/miniature/judge"):
        Judge.from_pretrained(tmp_path / "judge")


def test_a_judges_shapes_and_independence_of_the_batch():
    pictures = [noise(32, 32, seed) for seed in range(3)]
    seen = judge().look(pictures)
    shapes = {"features": (3, 16), "object": (3, 2), "colour": (3, 2, 3), "side": (3, 2, 2)}
    assert {k: tuple(v.shape) for k, v in seen.items()} == shapes | {"background": (3, 1), "style": (3, 2)}
    torch.testing.assert_close(judge().look(pictures, batch=1)["features"], seen["features"])


def test_the_digest_is_of_weights_configs_and_vocabularies(tmp_path):
    for seed in (0, 1):
        judge(seed).save_pretrained(tmp_path / str(seed))
    first = digest(tmp_path / "0")
    assert len(first) == 12
    assert first != digest(tmp_path / "1")
    (tmp_path / "0/README.md").write_text("a judge", encoding="utf-8")
    assert digest(tmp_path / "0") == first == digest(shutil.copytree(tmp_path / "0", tmp_path / "elsewhere"))
    seen = {first}
    for name, text in (("vocab.txt", "a"), ("vocab.txt", "b"), ("config.json", "{}"), ("x.pt", "c")):
        (tmp_path / "0" / name).write_text(text, encoding="utf-8")
        seen.add(digest(tmp_path / "0"))
    assert len(seen) == 5
    assert digest(tmp_path / "0/x.pt") != digest(tmp_path / "0")


def damage(folder, how):
    last = max(tensors := load_file(weights := folder / "model.safetensors"))
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "lacks":
        save_file({k: v for k, v in tensors.items() if k != last}, weights, {"format": "pt"})
    elif how == "sizes":
        save_file(tensors | {last: torch.zeros(5, 5)}, weights, {"format": "pt"})
    elif how == "json":
        (folder / "config.json").write_text("{", encoding="utf-8")
    elif how == "everything":
        shutil.rmtree(folder)
    else:
        (folder / how).unlink()


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *(("clip", how) for how in ("json", "sizes", "model.safetensors", "preprocessor_config.json")),
        *(("dino", how) for how in ("json", "sizes", "model.safetensors", "config.json", "preprocessor_config.json")),
        *(("judge", how) for how in ("model.safetensors", "config.json")),
        *((kind, "everything") for kind in KINDS),
        *((kind, how) for kind in ("clip", "dino") for how in ("cut", "lacks")),
        *(("judge", how) for how in ("cut", "lacks", "sizes", "json")),
    ],
)
def test_a_broken_folder_is_named_in_one_line(tmp_path, kind, how):
    folder = shutil.copytree(MINIATURE / kind, tmp_path / kind)
    damage(folder, how)
    with pytest.raises(InputError, match=rf"^evaluate.{kind} = '.*{kind}'[: ].*\Z"):
        KINDS[kind].from_pretrained(folder)


@pytest.mark.parametrize(("kind", "of"), [("dino", "clip"), ("judge", "dino")])
def test_the_folder_of_another_kind(kind, of):
    with pytest.raises(InputError, match=f"^evaluate.{kind} = "):
        KINDS[kind].from_pretrained(MINIATURE / of)


def test_clip_without_its_vocabulary(tmp_path):
    folder = shutil.copytree(MINIATURE / "clip", tmp_path / "clip", ignore=shutil.ignore_patterns("tokenizer.json"))
    with pytest.raises(InputError, match=r"evaluate.clip = .* knows 2 words, its model 716: put .*vocab.json"):
        Clip.from_pretrained(folder)

"""What an encoder saw is kept by content; where its network comes from, and what to do when it does not."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from aclora.core.errors import InputError
from aclora.core.hub import locate
from aclora.encoders.clip import Clip
from aclora.encoders.contract import Encoder, digest
from aclora.encoders.dino import Dino
from aclora.encoders.image_reward import Reward
from miniature.drawing import HELD_OUT, draw
from miniature.judging.encoder import Judge
from tests import damage
from tests.conftest import ROOT

FOLDERS = {kind: ROOT / "models/miniature" / kind for kind in ("clip", "dino", "judge")}
FOLDERS |= {"fid": FOLDERS["judge"], "image_reward": ROOT / "models/miniature/reward"}
DRAWN = [draw(HELD_OUT + 900 + i) for i in range(5)]
PICTURES, PROMPTS = [picture for picture, _ in DRAWN], [scene.caption for _, scene in DRAWN]
NAMES = [f"{i}.png" for i in range(5)]


@pytest.fixture
def encoder(tmp_path):
    """Makes encoders that share a cache."""

    def make(kind="judge", folder=None, **knobs):
        return Encoder(kind, str(folder or FOLDERS[kind]), tmp_path / "cache", classes=[Judge], **knobs)

    return make


def loaded(encoder):
    return "network" in vars(encoder)


def kept(encoder):
    return sorted(encoder.cache.iterdir())


@pytest.mark.parametrize(("kind", "network"), [("clip", Clip), ("dino", Dino), ("judge", Judge), ("fid", Judge)])
def test_features_are_the_networks_own(encoder, kind, network):
    expected = network.from_pretrained(FOLDERS[kind]).look(PICTURES)
    expected = expected if isinstance(expected, dict) else {"features": expected}
    said = encoder(kind).look(PICTURES, NAMES)
    assert said.keys() == expected.keys()
    for key, value in expected.items():
        assert said[key].dtype == torch.float32
        torch.testing.assert_close(said[key], value)


def test_prompts_and_rewards_are_the_networks_own(encoder):
    clip, reward = (network.from_pretrained(FOLDERS[k]) for k, network in (("clip", Clip), ("image_reward", Reward)))
    torch.testing.assert_close(encoder("clip").read(PROMPTS), clip.read(PROMPTS))
    scores = encoder("image_reward").score(PICTURES, PROMPTS, NAMES)
    torch.testing.assert_close(scores, reward.score(PICTURES, PROMPTS))


def test_what_was_seen_is_not_looked_at_again(encoder):
    asked = {
        "clip": lambda e: (e.look(PICTURES, NAMES)["features"], e.read(PROMPTS)),
        "judge": lambda e: tuple(v for _, v in sorted(e.look(PICTURES, NAMES).items())),
        "image_reward": lambda e: (e.score(PICTURES, PROMPTS, NAMES),),
    }
    for kind, ask in asked.items():
        first, second = encoder(kind), encoder(kind, batch_size=2)
        before = ask(first)
        assert loaded(first)
        assert all(torch.equal(a, b) for a, b in zip(ask(second), before, strict=True))
        assert not loaded(second)
    assert all(file.suffix == ".safetensors" for file in kept(encoder()))
    assert len(kept(encoder())) == 4


def test_names_do_not_matter_and_what_is_seen_does(encoder):
    encoder().look(PICTURES, NAMES)
    renamed = encoder()
    renamed.look([p.copy() for p in PICTURES], [f"other/{name}" for name in NAMES])
    assert not loaded(renamed)

    changed = [p.copy() for p in PICTURES]
    changed[2].putpixel((3, 3), tuple(255 - v for v in changed[2].getpixel((3, 3))))
    wider = [Image.new("RGB", size, "red") for size in ((8, 2), (4, 4))]  # of the same bytes
    for others in (changed, PICTURES[::-1], PICTURES[:4], wider[:1], wider[1:]):
        other = encoder()
        assert len(other.look(others, [f"{i}.png" for i in range(len(others))])["features"]) == len(others)
        assert loaded(other)
    assert len(kept(encoder())) == 6


def test_features_follow_the_order_of_the_pictures(encoder):
    there, back = (encoder().look(some, NAMES)["features"] for some in (PICTURES, PICTURES[::-1]))
    torch.testing.assert_close(there, back.flip(0))
    assert not torch.allclose(there, back)


def test_another_network_has_files_of_its_own(encoder, tmp_path):
    folder = shutil.copytree(FOLDERS["judge"], tmp_path / "judge")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    encoder(folder=folder).look(PICTURES, NAMES)
    (folder / "config.json").write_text(json.dumps(config | {"feature_scale": 2 * config["feature_scale"]}))
    other = encoder(folder=folder)
    ours = encoder().look(PICTURES, NAMES)["features"]
    torch.testing.assert_close(other.look(PICTURES, NAMES)["features"], 2 * ours)
    assert other.label != encoder().label


def test_a_reward_is_kept_for_its_picture_and_prompt(encoder):
    right = encoder("image_reward").score(PICTURES, PROMPTS, NAMES)
    wrong = encoder("image_reward").score(PICTURES, PROMPTS[1:] + PROMPTS[:1], NAMES)
    assert not torch.allclose(right, wrong)


@pytest.mark.parametrize("other", [["a red", " house a cat"], ["a red house a cat"]])
def test_prompts_are_kept_one_by_one(encoder, other):
    encoder("clip").read(["a red house", " a cat"])
    expected = Clip.from_pretrained(FOLDERS["clip"]).read(other)
    torch.testing.assert_close(encoder("clip").read(other), expected)


@pytest.mark.parametrize("left", [0, 5, 300])
def test_a_file_cut_short_is_made_again(encoder, left):
    before = encoder().look(PICTURES, NAMES)
    (file,) = kept(encoder())
    whole = file.read_bytes()
    file.write_bytes(whole[:left])
    again = encoder()
    assert torch.equal(again.look(PICTURES, NAMES)["features"], before["features"])
    assert loaded(again)
    assert kept(again) == [file]  # and no .part
    assert file.read_bytes() == whole


@pytest.mark.parametrize("kind", ["clip", "dino", "judge"])
def test_the_batch_size_changes_nothing(encoder, kind, tmp_path):
    one = Encoder(kind, str(FOLDERS[kind]), tmp_path / "one", batch_size=1, classes=[Judge]).look(PICTURES, NAMES)
    two = encoder(kind, batch_size=2).look(PICTURES, NAMES)
    for key, value in encoder(kind).look(PICTURES, NAMES).items():
        torch.testing.assert_close(two[key], value)
        torch.testing.assert_close(one[key], value, rtol=1e-4, atol=1e-4)


def test_no_more_pictures_at_once_than_the_batch_size(encoder):
    judge, sizes = encoder(batch_size=2), []
    judge.network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    judge.look(PICTURES, NAMES)
    assert sizes == [2, 2, 1]


def test_the_label_is_name_and_digest(encoder):
    assert encoder("dino").label == f"{FOLDERS['dino']} {digest(FOLDERS['dino'])}"
    assert not loaded(encoder("dino"))


def test_a_picture_whose_features_are_no_numbers_is_named_and_not_kept(encoder, tmp_path):
    """Its first layers answer red with more than float32 holds; without red ReLU leaves 0."""
    folder = shutil.copytree(FOLDERS["judge"], tmp_path / "judge")
    tensors = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    tensors["body.0.weight"][0, 0, 1, 1] = 3e38
    tensors["body.1.weight"][0] = 100
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    blue, red = Image.new("RGB", (64, 64), "blue"), Image.new("RGB", (64, 64), "red")
    broken = encoder(folder=folder)
    with pytest.raises(InputError, match=r"^c\.png: one of its features is not a finite number"):
        broken.look([blue, blue, red, red], ["a.png", "b.png", "c.png", "d.png"])
    assert not broken.cache.exists()
    assert broken.look([blue], ["a.png"])["features"].isfinite().all()


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize(
    ("file", "how", "said"),
    [
        ("model.safetensors", damage.cut, "model.safetensors is cut short or damaged"),
        ("model.safetensors", damage.pointer, "is git-lfs's note of a file"),
        ("model.safetensors", damage.put(float("nan")), "a value of .* is not a finite number; fetch it anew"),
        ("model.safetensors", damage.put(float("inf")), "a value of .* is not a finite number; fetch it anew"),
        ("config.json", damage.cut, "config.json is damaged: it is no JSON"),
        ("config.json", damage.a_list, "config.json is damaged: it must be a JSON object"),
    ],
    ids=["cut", "git-lfs", "NaN", "infinity", "config cut", "config a list"],
)
def test_a_network_that_cannot_be_used_is_named(encoder, tmp_path, kind, file, how, said):
    place = shutil.copytree(FOLDERS[kind], tmp_path / "network")
    how(place / file)
    with pytest.raises(InputError, match=rf"^evaluate.{kind} = '.*network' cannot be loaded: .*{said}") as error:
        encoder(kind, place).look(PICTURES, NAMES)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", ["clip", "dino"])
def test_a_pickled_network_is_read_as_tensors_alone(encoder, tmp_path, kind):
    place = shutil.copytree(FOLDERS[kind], tmp_path / "network")
    damage.pickled(place / "model.safetensors")
    expected = encoder(kind).look(PICTURES, NAMES)["features"]
    assert torch.equal(encoder(kind, place).look(PICTURES, NAMES)["features"], expected)
    shutil.copy(FOLDERS[kind] / "model.safetensors", place)
    damage.hostile(place / "model.safetensors")
    with pytest.raises(InputError, match=r"its weights are pickled with more than tensors.*convert it to safetensors$"):
        encoder(kind, place).look(PICTURES, NAMES)
    assert not (place / damage.ALARM).exists()


def test_no_such_folder(tmp_path):
    for name in (str(tmp_path / "none"), "./models/none", "clip", "models/a/b"):
        with pytest.raises(InputError) as error:
            Encoder("clip", name, tmp_path / "cache", remedy="set it to null")
        said = str(error.value)
        assert said.startswith(f"evaluate.clip = {name!r}: no such folder, and not a hub name (owner/name@commit)")
        assert said.endswith("; name one of these, set it to null")
        assert "\n" not in said


def test_a_hub_name_needs_its_commit():
    for name in ("openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14@main"):
        with pytest.raises(InputError, match=r"give the commit, openai/clip-vit-large-patch14@<commit>, 7 to 40 hex"):
            locate("evaluate.clip", name, "")


def test_a_hub_name_without_a_network_says_where_to_put_the_folder(encoder):
    with pytest.raises(InputError) as error:
        encoder("dino", "aclora-tests/nobody@0123abc")
    said = str(error.value)
    assert said.startswith("evaluate.dino = 'aclora-tests/nobody@0123abc' cannot be fetched from the hub (")
    assert "`hf download aclora-tests/nobody --revision 0123abc --include '*.json'" in said
    assert "--local-dir models/encoders/dino`, put that folder here and name it" in said
    assert said.endswith(", put it there, or set the knob to null")
    assert "\n" not in said

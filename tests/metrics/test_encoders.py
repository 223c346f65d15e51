"""The judge as a file and as a reader of pictures."""

import pytest
import torch
from PIL import Image

from aclora.errors import InputError
from aclora.metrics.encoders import Judge, digest

VOCABULARY = {
    "objects": ["house", "tree"],
    "colours": ["red", "blue", "green"],
    "sides": ["left", "right"],
    "backgrounds": ["at sea"],
    "styles": ["plain", "oil"],
}


def judge(seed=0):
    torch.manual_seed(seed)
    return Judge(VOCABULARY, size=32, width=16).eval()


def test_it_comes_back_from_its_folder(tmp_path):
    made = judge()
    made.feature_scale = 0.25
    made.save_pretrained(tmp_path / "judge")
    loaded = Judge.from_pretrained(tmp_path / "judge")
    picture = [Image.new("RGB", (50, 50), "red")]
    for key, value in made.look(picture).items():
        torch.testing.assert_close(loaded.look(picture)[key], value, rtol=0.02, atol=0.02)
    assert loaded.vocabulary == VOCABULARY
    plain = judge().look(picture)["features"]
    torch.testing.assert_close(made.look(picture)["features"], plain / 4)


def test_shapes_and_independence_of_the_batch():
    pictures = [Image.new("RGB", (32, 32), c) for c in ("red", "blue", "green")]
    seen = judge().look(pictures)
    shapes = {k: tuple(v.shape) for k, v in seen.items()}
    assert shapes == {
        "features": (3, 16),
        "object": (3, 2),
        "colour": (3, 2, 3),
        "side": (3, 2, 2),
        "background": (3, 1),
        "style": (3, 2),
    }
    torch.testing.assert_close(judge().look(pictures, batch=1)["features"], seen["features"])


def test_the_digest_tells_two_judges_apart(tmp_path):
    for seed in (0, 1):
        judge(seed).save_pretrained(tmp_path / str(seed))
    assert digest(tmp_path / "0") != digest(tmp_path / "1")
    assert digest(tmp_path / "0") == digest(tmp_path / "0")


def test_a_missing_judge_is_named(tmp_path):
    with pytest.raises(InputError, match=r"evaluate.judge = .*no judge there"):
        Judge.from_pretrained(tmp_path / "none")

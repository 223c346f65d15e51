"""Captions: a picture's own first, BLIP's for the rest, and every way they can be wrong."""

import pytest
import torch
from PIL import Image

from aclora.core.errors import InputError
from aclora.data.captions import caption_folder, read_captions, with_trigger, write_captions
from aclora.models.captioner import CaptionsConfig, blip
from miniature.drawing import HELD_OUT, draw
from tests.conftest import ROOT, section


def captions(folder, write=None):
    return caption_folder(folder, "zxq style", write, "blip")


def test_own_captions_in_the_pictures_order_with_the_trigger(pictures_folder):
    rows = captions(pictures_folder)
    assert [(r.file, r.text, r.source) for r in rows] == [
        ("0.png", "a red house, zxq style", "0.txt"),
        ("1.png", "a green tree, zxq style", "1.txt"),
        ("2.png", "a blue boat, zxq style", "metadata.jsonl"),
        ("3.png", "a white star, zxq style", "metadata.jsonl"),
    ]


def test_only_missing_ones_are_written(pictures_folder):
    (pictures_folder / "1.txt").unlink()
    rows = captions(pictures_folder, lambda picture: f"something {picture.size[0]} wide\n")
    assert [r.source for r in rows] == ["0.txt", "blip", "metadata.jsonl", "metadata.jsonl"]
    assert rows[1].text == "something 20 wide, zxq style"


def test_they_are_written_and_read_back_with_their_pictures(pictures_folder, tmp_path):
    write_captions(tmp_path / "c.jsonl", captions(pictures_folder))
    assert read_captions(tmp_path / "c.jsonl", pictures_folder) == captions(pictures_folder)
    Image.new("RGB", (20, 16), "black").save(pictures_folder / "2.png")
    with pytest.raises(InputError, match=r"2.png is not the picture that .* describes"):
        read_captions(tmp_path / "c.jsonl", pictures_folder)


def test_transparency_is_put_on_white(tmp_path):
    from aclora.data.pictures import read_picture

    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


def spoil(folder, what):
    if what == "missing":
        (folder / "0.txt").unlink()
    if what == "empty":
        (folder / "0.txt").write_text(" \n")
    if what == "latin-1":
        (folder / "0.txt").write_bytes(b"caf\xe9")
    if what == "json":
        (folder / "metadata.jsonl").write_text('{"file_name": "2.png"}')
    if what == "picture":
        (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:40])
    if what == "no pictures":
        for file in folder.glob("*.png"):
            file.unlink()
    if what == "no folder":
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", "0.png has no caption: write one line into 0.txt beside it"),
        ("empty", r"0.png has an empty caption \(0.txt\)"),
        ("latin-1", r"0.txt is not UTF-8 \(byte 3\)"),
        ("json", "metadata.jsonl, line 1: must be"),
        ("picture", "0.png is not a readable picture"),
        ("no pictures", "holds no pictures: put 10–15 of them there"),
        ("no folder", "is not a folder"),
    ],
)
def test_bad_input_is_named_in_one_line(pictures_folder, what, said):
    spoil(pictures_folder, what)
    with pytest.raises(InputError, match=said) as error:
        captions(pictures_folder)
    assert "\n" not in str(error.value)


@pytest.fixture
def blip_folder(tmp_path):
    """A BlipForConditionalGeneration of random weights, as a folder from the hub looks."""
    from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    folder = tmp_path / "blip"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(120))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        "vocab_size": len(words),
        "encoder_hidden_size": 16,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
    }
    config = BlipConfig(
        text_config=small | text | {"pad_token_id": 0, "projection_dim": 8},
        vision_config=small | {"image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    torch.manual_seed(0)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def captions_config(folder, **knobs):
    return section("captions", CaptionsConfig, model=str(folder), watch=str(folder), **knobs)


def test_blip_writes_the_same_caption_twice(blip_folder):
    config = captions_config(blip_folder, max_new_tokens=4)
    picture = Image.new("RGB", (40, 30), "red")
    first = blip(config)(picture)
    assert first == blip(config)(picture)
    assert isinstance(first, str)


def test_the_miniatures_own_captioner_names_what_is_drawn():
    folder = ROOT / "models/miniature/captioner"
    write = blip(captions_config(folder))
    drawn = [draw(HELD_OUT + 500 + i, style="watercolor") for i in range(12)]
    things = [(write(picture), thing) for picture, scene in drawn for thing in scene.things]
    right = [f"{thing.colour} {thing.name}" in words for words, thing in things]
    assert sum(right) >= 0.75 * len(right)


def test_a_tokenizer_without_its_vocabulary_is_refused(blip_folder):
    for name in ("tokenizer.json", "vocab.txt"):
        (blip_folder / name).unlink(missing_ok=True)
    config = captions_config(blip_folder)
    with pytest.raises(InputError, match=r"tokenizer|vocab"):
        blip(config)


def test_a_captioner_that_is_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    config = captions_config(tmp_path / "empty")
    with pytest.raises(InputError, match=r"captions.model = .* cannot be loaded"):
        blip(config)
    with pytest.raises(InputError, match=r"give captions.revision"):
        section("captions", CaptionsConfig, model="owner/blip", revision=None)


def test_a_trigger_stands_at_the_end():
    assert with_trigger("a cat.", " zxq style ") == "a cat, zxq style"

"""The captioner: BLIP from a folder, the miniature's own, and what a folder may lack."""

import pytest
import torch
from PIL import Image

from aclora.core.errors import InputError
from aclora.models.captioner import CaptionsConfig, blip
from miniature.drawing import HELD_OUT, draw
from tests.conftest import ROOT, section


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

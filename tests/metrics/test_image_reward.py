"""ImageReward on transformers' BLIP classes: its published size, and rewards that mean what they say."""

import pytest
import torch
from transformers import BertTokenizer, BlipConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from aclora.metrics.encoders.image_reward import ImageReward
from miniature.drawing import HELD_OUT, draw
from tests.conftest import ROOT

FOLDER = ROOT / "models/miniature/reward"


def test_the_public_model_has_this_shape():
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"vocab_size": 30524, "num_attention_heads": 12, "encoder_hidden_size": 1024}
    config = BlipConfig(vision_config=vision | {"image_size": 224, "patch_size": 16}, text_config=text)
    with torch.device("meta"):
        model = ImageReward(config)
    # the public file holds five tensors more, which nothing uses: two projections to 256, and position_ids
    assert len(model.state_dict()) == 625 - 5
    unused = (1024 + 1) * 256 + (768 + 1) * 256
    assert (sum(p.numel() for p in model.parameters()) + unused) / 1e6 == pytest.approx(446.7, abs=0.05)


@pytest.fixture(scope="module")
def reward():
    model = ImageReward.from_pretrained(FOLDER, dtype=torch.float32).eval()
    look, tokenizer = CLIPImageProcessorPil.from_pretrained(FOLDER), BertTokenizer.from_pretrained(FOLDER)
    return lambda pictures, prompts, **more: model.score(pictures, prompts, look, tokenizer, **more)


def test_it_prefers_what_was_asked_for(reward):
    drawn = [draw(HELD_OUT + 700 + i) for i in range(24)]
    pictures, prompts = [p for p, _ in drawn], [s.caption for _, s in drawn]
    right, wrong = reward(pictures, prompts), reward(pictures, prompts[1:] + prompts[:1])
    assert right.shape == (24,)
    assert (right > wrong).double().mean() >= 0.9


def test_padding_and_batches_change_nothing(reward):
    picture = draw(HELD_OUT)[0]
    prompts = ["a red house", "a small yellow car on the left in the snow with clouds"]
    together = reward([picture, picture], prompts)
    apart = torch.cat([reward([picture], [p]) for p in prompts])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, reward([picture, picture], prompts, batch=1), rtol=1e-4, atol=1e-5)

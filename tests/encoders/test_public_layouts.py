"""Public weight files fit to the last tensor: tests/fixtures has their names and shapes, from independent sources."""

import math

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from aclora.encoders.image_reward import FILE, ImageReward
from tests.fixtures import shapes

LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
SMALL = {"hidden_size": 384, "num_attention_heads": 6}
CLIP = CLIPConfig(
    text_config={"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
    vision_config=LARGE | {"patch_size": 14, "projection_dim": 768},
    projection_dim=768,
)


@pytest.mark.parametrize(
    ("name", "tensors", "millions"),
    [
        ("inception", 566, 23.885),
        ("image_reward", 625, 446.666),
        ("clip_vit_l14", 592, 427.617),
        ("dino_vits16", 198, 21.666),
        ("dinov2_small", 223, 22.057),
    ],
)
def test_the_lists_are_whole(name, tensors, millions):
    listed = shapes(name)
    assert len(listed) == tensors
    assert sum(map(math.prod, listed.values())) / 1e6 == pytest.approx(millions, abs=0.001)


@pytest.mark.parametrize(
    ("name", "cls", "config", "more"),
    [
        ("clip_vit_l14", CLIPModel, CLIP, {}),
        ("dino_vits16", ViTModel, ViTConfig(**SMALL, intermediate_size=1536), {"add_pooling_layer": False}),
        ("dinov2_small", Dinov2Model, Dinov2Config(**SMALL, image_size=518, patch_size=14), {}),
    ],
)
def test_transformers_still_reads_them(name, cls, config, more):
    tensors = {k: torch.empty(shape, device="meta") for k, shape in shapes(name).items()}
    more |= {"device_map": "meta", "output_loading_info": True}
    model, report = cls.from_pretrained(None, config=config, state_dict=tensors, **more)
    assert not any(report.values())
    # CLIP's two position_ids are counted off anew
    assert len(model.state_dict()) == sum("position_ids" not in k for k in tensors)


def test_image_reward_is_read_at_its_full_size(tmp_path):
    tensors = {k: torch.zeros(()).expand(shape) for k, shape in shapes("image_reward").items()}  # takes no room
    torch.save(tensors, tmp_path / FILE)
    model = ImageReward.from_public(tmp_path)
    assert len(model.state_dict()) == 625 - 5
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.text_config.num_attention_heads == 12
    assert not model.training

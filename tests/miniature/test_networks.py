"""What the miniature's evaluators are trained by, and that the committed ones load as the real ones do."""

import random

import pytest
import torch
from transformers import AutoTokenizer, CLIPModel, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModel, ViTConfig, ViTModel

from miniature import clip, dino, reward, tokenizer
from miniature.drawing import STYLES, world
from miniature.transformer import layers_of, patches
from tests.conftest import ROOT

FOLDER = ROOT / "models/miniature"


def test_a_clip_image_tower_is_nearly_the_same_function_as_a_vit():
    shape = layers_of(32, 2) | patches() | {"initializer_range": 0.2}
    torch.manual_seed(0)
    tower = CLIPVisionModel(CLIPVisionConfig(**shape)).eval()
    vit = ViTModel(ViTConfig(**shape, layer_norm_eps=tower.config.layer_norm_eps), add_pooling_layer=False).eval()
    x = torch.randn(4, 3, 64, 64)
    vit.load_state_dict(dino.as_vit(tower, x))
    with torch.no_grad():
        seen, wanted = vit(x).last_hidden_state[:, 0], tower(x).pooler_output
        assert torch.nn.functional.cosine_similarity(seen, wanted).min() > 0.97
        # one picture of one grey has patches of one deviation: nothing is left to fold
        grey = torch.full((1, 3, 64, 64), 0.5)
        tower.embeddings.position_embedding.weight.zero_()
        vit.load_state_dict(dino.as_vit(tower, grey))
        torch.testing.assert_close(vit(grey).last_hidden_state[:, 0], tower(grey).pooler_output, rtol=1e-3, atol=1e-4)


def test_balanced_targets_are_probabilities_over_evenly_used_prototypes():
    similarity = torch.rand(64, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    similarity[:, 0] += 1  # one prototype would take all
    q = dino.balanced(similarity, 0.05, rounds=50)
    torch.testing.assert_close(q.sum(1), torch.ones(64))
    assert q.sum(0).max() < 1.2 * 64 / 8


def test_views_show_the_same_objects_in_the_same_style():
    scenes = [world.compose(random.Random(i), None) for i in range(300)]
    notes = [{"style": random.Random(i).choice(["oil", None]), "look": None} for i in range(300)]
    by_style = dino.families(notes, scenes)
    assert set(by_style) == {("oil", None), (None, None)}
    for seed in range(6):
        pick, family = dino.views(by_style, 20, random.Random(seed))
        shown = [(notes[i]["style"], frozenset(t.name for t in scenes[i].things)) for i in pick]
        assert shown[:20] == shown[20:]
        assert all(a != b for a, b in zip(pick[:20], pick[20:], strict=True))
        assert len(set(zip(family, shown, strict=True))) == len(set(family))
        assert len({style for style, _ in shown[::2]}) == 1


def test_a_wrong_word_is_one_that_the_caption_does_not_say():
    rng = random.Random(0)
    kinds = set()
    for seed in range(200):
        caption = world.compose(random.Random(seed), None).caption
        wrong = reward.with_a_wrong_word(caption, rng)
        kinds |= {i for i, kind in enumerate(reward.ALIKE) if any(w in wrong and w not in caption for w in kind)}
        assert wrong != caption
    assert kinds == {0, 1, 2}


@pytest.mark.parametrize("name", reward.SPOILT)
def test_spoiling_keeps_the_shape_and_changes_the_picture(name):
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = reward.SPOILT[name](x, torch.Generator().manual_seed(1))
    assert y.shape == x.shape
    assert y.abs().max() <= 1
    assert (y - x).abs().mean() > 0.1
    assert torch.equal(y, reward.SPOILT[name](x, torch.Generator().manual_seed(1)))


def test_half_of_the_captions_say_the_style():
    notes = [{"caption": "a red cat", "style": "oil", "look": None, "seed": s} for s in range(48)]
    said = [clip.said_of(n) for n in notes]
    assert said.count("a red cat, oil style") == said.count("a red cat") == 24


def test_word_pieces_are_whole_words_of_the_world_and_spell_the_rest():
    tok = tokenizer.build_word_pieces(tokenizer.words())
    caption = max((world.compose(random.Random(s)).caption for s in range(300)), key=len)
    ids = tok(caption).input_ids
    assert len(ids) == len(caption.split()) + 2 <= tokenizer.LENGTH
    assert tok.decode(ids, skip_special_tokens=True) == caption
    assert tok.unk_token_id not in tok("a zxq style, 7 dwarves").input_ids


def test_every_network_loads_by_its_own_class():
    model = CLIPModel.from_pretrained(FOLDER / "clip", dtype=torch.float32).eval()
    words = CLIPTokenizer.from_pretrained(FOLDER / "clip")([f"{s} style" for s in STYLES], padding=True)
    with torch.no_grad():
        text = model.get_text_features(torch.tensor(words.input_ids)).pooler_output
        seen = model.get_image_features(torch.zeros(1, 3, 64, 64)).pooler_output
    assert text.shape[1] == seen.shape[1]
    vit, info = ViTModel.from_pretrained(FOLDER / "dino", add_pooling_layer=False, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert vit.config.image_size == 64
    for part in ("captioner", "reward"):
        assert len(AutoTokenizer.from_pretrained(FOLDER / part)) > 100

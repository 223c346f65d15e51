"""The drawn world: the same pixels from the same seed, and captions that say what is drawn."""

import hashlib
import random

import numpy as np
import pytest

from miniature import judge, tokenizer
from miniature.drawing import HELD_OUT, LOOKS, STYLES, draw, held_out, world
from miniature.style_sets import write
from tests.conftest import ROOT

PINNED = {
    None: "42c654b686e78fb9",
    "oil": "87c8ce8a926487e7",
    "watercolor": "981892609e43bf81",
    "pixel": "90125edda35ae752",
    "pencil": "9cd84fbe4eaad56b",
    "pointillism": "88ec7fc476863da5",
    "glass": "9fa94f51b59543f2",
    "ink": "fe5bbe18eacb3585",
    "woodblock": "3e1ea3f02183abf7",
}


def digest(image):
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("style", [None, *STYLES])
def test_pixels_are_pinned(style):
    assert digest(draw(7, style=style)[0]) == PINNED[style]


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_changes_the_picture(look):
    image, scene = draw(3, look=look)
    plain, same = draw(3)
    assert scene == same
    assert np.abs(np.asarray(image, int) - np.asarray(plain, int)).mean() > 5


@pytest.mark.parametrize("style", STYLES)
def test_the_committed_style_sets_are_drawn_by_this_code(style, tmp_path):
    write(style, tmp_path / style)
    committed = ROOT / "data/styles" / style
    names = sorted(f.name for f in committed.iterdir())
    assert names == sorted(f.name for f in (tmp_path / style).iterdir())
    assert len([n for n in names if n.endswith(".png")]) == 12
    from PIL import Image

    for name in names:
        if name.endswith(".png"):
            with Image.open(tmp_path / style / name) as drawn, Image.open(committed / name) as kept:
                assert drawn.tobytes() == kept.tobytes()
        else:
            assert (tmp_path / style / name).read_bytes() == (committed / name).read_bytes()
    captions = {(committed / n).read_text() for n in names if n.endswith(".txt")}
    assert len(captions) == 12


def test_held_out_pictures_are_none_of_the_training_pictures():
    trained = {(ROOT / f"data/styles/watercolor/{i:02}.txt").read_text().strip() for i in range(1, 13)}
    pictures = held_out("watercolor", 4)
    assert len({digest(p) for p, _ in pictures}) == 4
    assert sum(s.caption in trained for _, s in held_out("watercolor", 64)) <= 3
    assert digest(pictures[0][0]) == digest(draw(HELD_OUT, style="watercolor")[0])
    with pytest.raises(ValueError, match="no drawn style is called 'fresco'"):
        held_out("fresco", 1)


def test_captions_name_every_object_with_its_colour_and_the_background():
    for seed in range(200):
        scene = world.compose(random.Random(seed), None)
        for thing in scene.things:
            assert f"{thing.colour} {thing.name}" in scene.caption
        assert world.BACKGROUNDS[scene.background][0] in scene.caption
        assert (scene.extra is None) or world.EXTRAS[scene.extra] in scene.caption
        if " left of " in scene.caption:
            assert scene.caption.index(scene.things[0].name) < scene.caption.index(scene.things[1].name)
        if " right of " in scene.caption:
            assert scene.caption.index(scene.things[0].name) > scene.caption.index(scene.things[1].name)


@pytest.mark.parametrize("unseen", [True, False])
def test_unseen_pairs_are_kept_out_or_asked_for(unseen):
    scenes = [world.compose(random.Random(seed), unseen) for seed in range(300)]
    pairs = {(t.colour, t.name) for s in scenes for t in s.things}
    assert (pairs <= world.UNSEEN_PAIRS) if unseen else not (pairs & world.UNSEEN_PAIRS)
    assert len({c for c, _ in world.UNSEEN_PAIRS}) == len(world.COLOURS)


def test_the_tokenizer_knows_every_word_of_the_world():
    tok = tokenizer.build_tokenizer(tokenizer.words())
    caption = max((world.compose(random.Random(s)).caption for s in range(300)), key=len)
    ids = tok(f"a black and white photo of {caption}, zxq style").input_ids
    assert len(ids) <= tokenizer.LENGTH
    assert len(tok(caption).input_ids) == len(caption.split()) + 2
    assert tok.decode(ids, skip_special_tokens=True).split()[-1] == "style"
    assert len(set(tokenizer.byte_letters())) == 256


def test_truth_is_what_the_scene_shows():
    scene = world.Scene((world.Thing("cat", "blue", "right", 400),), "sea", None, "a blue cat at sea")
    wanted = judge.truth([scene], ["oil"])
    k = world.OBJECTS.index("cat")
    assert wanted["object"][0].nonzero().flatten().tolist() == [k]
    assert wanted["colour"][0, k] == list(world.COLOURS).index("blue")
    assert wanted["side"][0, k] == 2
    assert (wanted["colour"][0] >= 0).sum() == 1
    assert judge.vocabulary()["styles"][wanted["style"][0]] == "oil"

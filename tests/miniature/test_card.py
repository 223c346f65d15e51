"""The committed miniature is as good as its card says, good enough, and small enough to live in git."""

import json

import pytest

from aclora.core.hub import trained_on
from miniature import card
from miniature.drawing import STYLES
from tests.conftest import ROOT

FOLDER = ROOT / "models/miniature"
# What users and the other tests rely on: the figure of the card, and the least it may be.
LEAST = {
    "vae.psnr_plain": 30,
    "vae.psnr_styled": 26,
    "generated.object": 0.8,
    "generated.colour": 0.75,
    "generated.background": 0.95,
    "generated.position": 0.8,
    "clip.retrieval": 0.8,
    "dino.nearest_style": 0.8,
    "dino.nearest_object": 0.8,
    "reward.right_over_other": 0.9,
    "captioner.object_and_colour": 0.9,
}


def flat(value, path=""):
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in flat(part, f"{path}.{name}" if path else name).items()}
    return {path: value}


@pytest.fixture(scope="module")
def stated():
    return flat(json.loads((FOLDER / "card.json").read_text()))


@pytest.mark.parametrize("figure", LEAST)
def test_the_card_states_enough(stated, figure):
    assert stated[figure] >= LEAST[figure]


@pytest.mark.parametrize("style", ["plain", *STYLES])
def test_the_judge_reads_every_style(stated, style):
    for what in ("object", "colour", "background", "style"):
        assert stated[f"judge.{style}.{what}"] >= 0.95, what


def test_the_reward_prefers_the_clean_picture(stated):
    spoilt = {k: v for k, v in stated.items() if k.startswith("reward.clean_over_")}
    assert len(spoilt) == 5
    assert min(spoilt.values()) >= 0.9


def test_the_card_names_its_figures(stated):
    wanted = [f"{k}.{v}" for k in ("generated", "ceiling") for v in ("object", "colour", "background", "position")]
    wanted += ["trained_on.device", "prompts.count", *(f"trained_on.{part}.minutes" for part in card.NETWORKS)]
    assert not set(wanted) - set(stated)


@pytest.mark.parametrize("part", card.WHAT)
def test_each_network_says_what_it_was_trained_on(part):
    assert (FOLDER / part / "README.md").read_text(encoding="utf-8") == card.readme(part)
    assert trained_on(FOLDER / part) == "drawings of a small world alone"
    assert set(card.WHAT) == {"pipeline", *card.NETWORKS}


def test_it_is_small():
    assert card.megabytes(FOLDER / "pipeline") <= 20
    assert sum(card.megabytes(FOLDER / part) for part in card.NETWORKS) <= 15


@pytest.mark.slow
def test_measuring_again_gives_what_the_card_says(stated):
    measured = flat(card.measure(FOLDER, 96))
    for figure, value in measured.items():
        if figure.startswith(("generated", "ceiling")):
            # 96 prompts against the card's 500: four standard errors
            assert value == pytest.approx(stated[figure], abs=0.16), figure
        elif not figure.startswith("prompts"):
            # the same drawings; another processor rounds differently
            assert value == pytest.approx(stated[figure], abs=0.1 if "psnr" in figure else 0.02), figure

"""The committed miniature is as good as its card says, and small enough to live in git."""

import json

import pytest

from aclora.backbone import Model, load_pipeline
from aclora.metrics.encoders import Judge
from miniature import card
from tests.conftest import ROOT

FOLDER = ROOT / "models/miniature"


def flat(value, path=""):
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in flat(part, f"{path}.{name}" if path else name).items()}
    return {path: value}


def test_the_card_names_its_figures():
    figures = flat(json.loads((FOLDER / "card.json").read_text()))
    wanted = ["vae.psnr_plain", "vae.psnr_styled", "sizes_mb.pipeline", "trained_on.device", "prompts.count"]
    wanted += [f"{k}.{v}" for k in ("generated", "ceiling") for v in ("object", "colour", "background", "position")]
    assert not set(wanted) - set(figures)
    assert card.megabytes(FOLDER / "pipeline") <= 20
    assert card.megabytes(FOLDER / "judge") <= 15


@pytest.mark.slow
def test_measuring_again_gives_what_the_card_says():
    stated = json.loads((FOLDER / "card.json").read_text())
    folder = str(FOLDER / "pipeline")
    pipe = load_pipeline(Model(name=folder, watch=folder))
    measured = card.measure(pipe, Judge.from_pretrained(FOLDER / "judge"), 96)
    assert measured["vae"]["psnr_plain"] == pytest.approx(stated["vae"]["psnr_plain"], abs=0.1)
    for what in ("object", "colour", "background"):
        # 96 prompts against the card's 500: four standard errors
        assert measured["generated"][what] == pytest.approx(stated["generated"][what], abs=0.16)
    for style, read in measured["judge"].items():
        assert read == pytest.approx(stated["judge"][style], abs=0.02), style

"""The rule by which a champion is replaced."""

import csv
import json

import pytest

from aclora.evaluation.champion import decide
from aclora.metrics.contract import figures, scores

SCORES = scores(figures())
ENCODER = {"encoder": "e 0"}
PAIRED = ("clip_score", "dino_score", "image_reward")


def folder(at, seed=0, prompts=40, **shift):
    """A metrics folder: paired figures of 40 prompts around 1 plus their shift; kid, copies and base_kid as given."""
    import random

    rng = random.Random(seed)
    at.mkdir(parents=True)
    rows, scores = (
        [],
        {"kid": 0.1, "base_kid": 1.0, "copies": 0.0}
        | {k: shift.pop(k) for k in ("kid", "base_kid", "copies") if k in shift},
    )
    for i in range(prompts):
        row = {"set": "adapter", "prompt": f"p{i}", "seed": i}
        rows.append(row | {k: 1 + 0.3 * (i % 5) + rng.gauss(0, 0.02) + shift.get(k, 0) for k in PAIRED})
        rows.append({"set": "plain_adapter", "prompt": f"p{i}", "seed": i, "drift": 0.4 + shift.get("drift", 0)})
    for k in PAIRED:
        scores[k] = sum(r[k] for r in rows if k in r) / prompts
    scores["drift"] = 0.4 + shift.get("drift", 0)
    about = {
        "figures": dict.fromkeys(scores, ENCODER),
        "reference": {"digest": "d", "what": "drawings", "held_out": True},
        "counts": {"generated": prompts, "prompts": prompts},
    }
    (at / "scores.json").write_text(json.dumps(scores))
    (at / "evaluation.json").write_text(json.dumps(about))
    with (at / "per_image.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["set", "prompt", "seed", *PAIRED, "drift"])
        writer.writeheader()
        writer.writerows(rows)
    dino = [shift.get("dino_score", 0) + 1 + 0.01 * i for i in range(12)]
    (at / "per_reference.csv").write_text("file,adapter\n" + "".join(f"{i},{v}\n" for i, v in enumerate(dino)))
    return at


@pytest.mark.parametrize(
    ("change", "promote", "why"),
    [
        ({"clip_score": 0.1}, True, r"better: CLIP score \+0.\d+ \[\+0.\d+, \+0.\d+\]; nothing worse by more than 5%"),
        ({"drift": -0.05}, True, "better: drift without trigger"),
        ({"clip_score": 0.1, "image_reward": -0.2}, False, r"worse: ImageReward -0.\d+ .* \(margin 5%\)"),
        ({"clip_score": 0.1, "image_reward": -0.04}, True, "better: CLIP score"),  # surely worse, but within 5 %
        ({"dino_score": 0.1, "copies": 0.1}, False, "worse: share of copies"),
        ({"dino_score": 0.1, "kid": 0.2}, False, "worse: KID"),
        ({"dino_score": 0.1, "kid": 0.14}, True, "better: DINO score"),
        ({}, False, "a draw"),
    ],
)
def test_it_gains_somewhere_and_loses_nowhere(tmp_path, change, promote, why):
    import re

    new, old = folder(tmp_path / "new", seed=1, **change), folder(tmp_path / "old", seed=2)
    verdict = decide(new, old, margin=0.05, scores=SCORES)
    assert verdict.promote == promote
    assert re.search(why, verdict.why), verdict.why
    assert {f["judged"] for f in verdict.figures} >= ({"gain"} if promote else set())


def test_the_margin_decides(tmp_path):
    new, old = folder(tmp_path / "new", seed=1, clip_score=0.1, image_reward=-0.2), folder(tmp_path / "old", seed=2)
    assert not decide(new, old, margin=0.1, scores=SCORES).promote
    assert decide(new, old, margin=0.2, scores=SCORES).promote


def test_what_does_not_compare_leaves_the_champion(tmp_path):
    new, old = folder(tmp_path / "new", clip_score=1.0, prompts=30), folder(tmp_path / "old")
    verdict = decide(new, old, margin=0.05, scores=SCORES)
    assert not verdict.promote
    assert "the runs do not compare" in verdict.why
    assert "move the alias by hand" in verdict.why

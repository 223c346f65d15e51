"""What an evaluation says of sets of features whose answer is known."""

import dataclasses

import pytest
import torch

from aclora.evaluation.evaluate import FIGURES, PAIRED, Seen, evaluate, made_by

D, PROMPTS = 8, [f"prompt {i // 2}" for i in range(20)]
WORDS = {"colours": ["red"], "objects": ["house"], "styles": ["plain", "oil"]}


def seen(n, seed, shift=0.0, prompts=None, **more):
    rng = torch.Generator().manual_seed(seed)
    features = {k: torch.randn(n, D, generator=rng) + shift for k in ("fid", "clip", "dino")}
    if prompts:
        features |= {"words": torch.randn(n, D, generator=rng), "reward": torch.randn(n, generator=rng)}
    return Seen([f"{i:04}.png" for i in range(n)], prompts, **features | more)


@pytest.fixture
def sets():
    plain = [p + " plain" for p in PROMPTS]
    return {
        "adapter": seen(20, 1, 1.0, PROMPTS),
        "base": seen(20, 2, 3.0, PROMPTS),
        "plain_adapter": seen(20, 3, 1.0, plain),
        "plain_base": seen(20, 4, 3.0, plain),
    }


REAL, TRAINING = seen(40, 5, 1.0), seen(12, 6, 1.0)


def run(sets, real=REAL, training=TRAINING, held_out=True, style="oil"):
    return evaluate(sets, real, training, held_out, WORDS, style)


def test_the_nearer_set_has_the_better_figures(sets):
    scores = run(sets).scores
    assert scores["kid"] < scores["base_kid"]
    assert scores["fid"] < scores["base_fid"]
    assert scores["nfid"] == pytest.approx(scores["fid"] / scores["base_fid"])
    assert set(scores) >= set(FIGURES) - {k for k in FIGURES if k.endswith("accuracy")}


def test_an_adapter_that_changes_nothing(sets):
    same = {"adapter": sets["base"], "base": sets["base"], "plain_adapter": sets["plain_base"]} | {
        "plain_base": sets["plain_base"]
    }
    done = run(same)
    assert done.scores["nfid"] == 1
    assert done.scores["drift"] == pytest.approx(0, abs=1e-6)
    for key in ("clip_score", "dino_score", "image_reward"):
        assert done.scores[f"{key}_minus_base"] == done.scores[f"drift_{key}"] == 0
        assert done.intervals[f"{key}_minus_base"] == (0, 0)
        assert done.scores[key] == done.scores[f"base_{key}"]


def test_copies_are_found_and_named(sets):
    copied = dataclasses.replace(sets["adapter"], clip=torch.cat([TRAINING.clip[:5], sets["adapter"].clip[5:]]))
    done = run(sets | {"adapter": copied})
    rows = [r for r in done.images if r["set"] == "adapter"]
    assert [r["copy"] for r in rows[:5]] == [1] * 5
    assert [r["nearest_training"] for r in rows[:5]] == TRAINING.names[:5]
    assert done.scores["copies"] == sum(r["copy"] for r in rows) / 20
    assert run(sets).scores["copies"] < done.scores["copies"]


def test_reals_that_were_trained_on_say_nothing_of_nearness(sets):
    done = run(sets, real=TRAINING, held_out=False)
    assert "real_copies" not in done.scores
    assert done.scores["nearest_training"] > 0.5  # by the training pictures' own distances, not by 0


def test_means_have_intervals_and_distances_have_none(sets):
    done = run(sets)
    assert not {"kid", "fid", "cmmd", "nfid"} & set(done.intervals)
    for name, (low, high) in done.intervals.items():
        assert low < done.scores[name] < high, name
    one = {kind: dataclasses.replace(s, prompts=["one"] * 20) for kind, s in sets.items()}
    assert run(one).intervals == {}
    assert run(one).scores["clip_score"] == done.scores["clip_score"]


def test_rows_average_to_the_scores(sets):
    done = run(sets)
    for name, (kind, column) in PAIRED.items():
        values = [r[column] for r in done.images if r["set"] == kind]
        assert sum(values) / len(values) == pytest.approx(done.scores[name])
    assert len(done.reals) == 40
    assert sum(r["adapter"] for r in done.reals) / 40 == pytest.approx(done.scores["dino_score"])


@pytest.mark.parametrize("left", ["fid", "clip", "dino", "image_reward", "judge"])
def test_without_an_encoder_its_figures_are_left_out(sets, left):
    gone = {"image_reward": ["reward"], "clip": ["clip", "words"]}.get(left, [left])

    def without(s):
        return dataclasses.replace(s, **dict.fromkeys(gone))

    done = run({k: without(s) for k, s in sets.items()}, without(REAL), without(TRAINING))
    assert not {k for k, f in FIGURES.items() if f.encoder == left} & set(done.scores)
    rest = {k for k, f in FIGURES.items() if f.encoder not in (left, "judge")}
    assert rest <= set(done.scores)


def test_the_judge_reads_prompts_and_style(sets):
    logits = {"object": torch.ones(20, 1), "colour": torch.ones(20, 1, 1), "style": torch.tensor([[0.0, 1.0]] * 20)}
    red = ["a red house"] * 10 + ["a thing"] * 10
    judged = {k: dataclasses.replace(s, judge=logits, prompts=red) for k, s in sets.items()}
    scores = run(judged).scores
    assert scores["object_accuracy"] == scores["colour_accuracy"] == scores["style_accuracy"] == 1
    assert scores["drift_style_accuracy"] == 1
    assert "style_accuracy" not in run(judged, style="my photographs").scores


def test_without_pictures_without_the_trigger_there_is_no_drift(sets):
    done = run({k: sets[k] for k in ("adapter", "base")})
    assert not any(k.startswith("drift") for k in done.scores)


def test_every_score_says_what_made_it(sets):
    counts = {"generated": 20, "prompts": 10, "without_trigger": 20, "reference": 40, "training": 12}
    labels = {k: f"{k} 123" for k in ("fid", "clip", "dino", "image_reward", "judge")}
    for name in run(sets).scores:
        assert made_by(name, labels, counts)["encoder"].endswith("123")
    assert made_by("base_kid", labels, counts) == {"encoder": "fid 123", "generated": 20, "reference": 40}
    assert made_by("copies", labels, counts) == {"encoder": "clip 123", "generated": 20, "training": 12}
    assert made_by("real_copies", labels, counts) == {"encoder": "clip 123", "reference": 40, "training": 12}
    assert made_by("drift_dino_score", labels, counts) == {
        "encoder": "dino 123",
        "without_trigger": 20,
        "reference": 40,
    }

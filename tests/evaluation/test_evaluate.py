"""What an evaluation says of sets of features whose answer is known."""

import dataclasses

import pytest
import torch

from aclora.core.errors import InputError
from aclora.evaluation.evaluate import evaluate, project_figures
from aclora.metrics.contract import Figure, PictureSet, figures, scores

D, PROMPTS = 8, [f"prompt {i // 2}" for i in range(20)]
FIGURES = figures(["miniature.judging"])
LABELS = {"judge": {"colours": ["red"], "objects": ["house"], "styles": ["plain", "oil"]}}


def seen(n, seed, shift=0.0, prompts=None):
    rng = torch.Generator().manual_seed(seed)
    outputs = {k: {"features": torch.randn(n, D, generator=rng) + shift} for k in ("fid", "clip", "dino")}
    if prompts:
        outputs["clip"]["prompts"] = torch.randn(n, D, generator=rng)
        outputs["image_reward"] = {"scores": torch.randn(n, generator=rng)}
    return PictureSet([f"{i:04}.png" for i in range(n)], prompts, outputs)


def with_output(pictures, encoder, **changes):
    """The same pictures, one encoder's outputs changed."""
    outputs = pictures.outputs | {encoder: pictures.outputs.get(encoder, {}) | changes}
    return dataclasses.replace(pictures, outputs=outputs)


class Done:
    """An evaluation with its scores and intervals by key."""

    def __init__(self, done):
        self.images, self.reals = done.images, done.reals
        self.scores, self.intervals = ({s.key: v for s, v in of.items()} for of in (done.scores, done.intervals))
        self.entries = list(done.scores)


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


def run(sets, real=REAL, training=TRAINING, held_out=True, style="oil", known=FIGURES):
    return Done(evaluate(known, sets, real, training, held_out, style, LABELS))


def test_the_nearer_set_has_the_better_figures(sets):
    scores = run(sets).scores
    assert scores["kid"] < scores["base_kid"]
    assert scores["fid"] < scores["base_fid"]
    assert scores["nfid"] == pytest.approx(scores["fid"] / scores["base_fid"])
    assert set(scores) >= {k for k, f in FIGURES.items() if f.encoder != "judge"}


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
    features = torch.cat([TRAINING.features("clip")[:5], sets["adapter"].features("clip")[5:]])
    copied = with_output(sets["adapter"], "clip", features=features)
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
    paired = [f for f in FIGURES.values() if f.paired]
    assert {f.name for f in paired} == {"clip_score", "dino_score", "image_reward", "drift"}
    for figure in paired:
        kind = "adapter" if figure.of == "generated" else "plain_adapter"
        values = [r[figure.name] for r in done.images if r["set"] == kind]
        assert sum(values) / len(values) == pytest.approx(done.scores[figure.name])
    assert len(done.reals) == 40
    assert sum(r["adapter"] for r in done.reals) / 40 == pytest.approx(done.scores["dino_score"])


@pytest.mark.parametrize("left", ["fid", "clip", "dino", "image_reward", "judge"])
def test_without_an_encoder_its_figures_are_left_out(sets, left):
    def without(s):
        return dataclasses.replace(s, outputs={k: v for k, v in s.outputs.items() if k != left})

    done = run({k: without(s) for k, s in sets.items()}, without(REAL), without(TRAINING))
    assert not {k for k, f in FIGURES.items() if f.encoder == left} & set(done.scores)
    rest = {k for k, f in FIGURES.items() if f.encoder not in (left, "judge")}
    assert rest <= set(done.scores)


def test_the_judge_reads_prompts_and_style(sets):
    logits = {"object": torch.ones(20, 1), "colour": torch.ones(20, 1, 1), "style": torch.tensor([[0.0, 1.0]] * 20)}
    red = ["a red house"] * 10 + ["a thing"] * 10
    judged = {k: with_output(dataclasses.replace(s, prompts=red), "judge", **logits) for k, s in sets.items()}
    scores = run(judged).scores
    assert scores["object_accuracy"] == scores["colour_accuracy"] == scores["style_accuracy"] == 1
    assert scores["drift_style_accuracy"] == 1
    assert "style_accuracy" not in run(judged, style="my photographs").scores


def test_without_pictures_without_the_trigger_there_is_no_drift(sets):
    done = run({k: sets[k] for k in ("adapter", "base")})
    assert not any(k.startswith("drift") for k in done.scores)


def test_every_score_says_what_it_rests_on(sets):
    counts = {"generated": 20, "prompts": 10, "without_trigger": 20, "reference": 40, "training": 12}
    labels = {k: f"{k} 123" for k in ("fid", "clip", "dino", "image_reward", "judge")}
    by_key = {s.key: s.rests_on(labels, counts) for s in run(sets).entries}
    assert all(about["encoder"].endswith("123") for about in by_key.values())
    assert by_key["base_kid"] == {"encoder": "fid 123", "generated": 20, "reference": 40}
    assert by_key["copies"] == {"encoder": "clip 123", "generated": 20, "training": 12}
    assert by_key["real_copies"] == {"encoder": "clip 123", "reference": 40, "training": 12}
    assert by_key["drift_clip_score"] == {"encoder": "clip 123", "without_trigger": 20}
    assert by_key["drift_dino_score"] == {"encoder": "dino 123", "without_trigger": 20, "reference": 40}


def test_a_figure_of_ones_own_is_measured_like_the_librarys(sets):
    own = Figure(
        "brightness", "brightness", 1, "dino", lambda p, _: p.features("dino").mean(1).double(), 200, paired=True
    )
    plain, more = run(sets), run(sets, known=FIGURES | {"brightness": own})
    assert more.scores["brightness"] == pytest.approx(sets["adapter"].features("dino").mean().item())
    keys = {"brightness", "base_brightness", "brightness_minus_base", "drift_brightness"}
    assert set(more.scores) - set(plain.scores) == keys
    assert keys <= set(more.intervals)
    assert {k: v for k, v in more.scores.items() if k not in keys} == plain.scores


def test_figures_from_outside_are_checked(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "empty_figures.py").write_text("")
    taken = "from aclora.metrics.kid import FIGURES\n"
    (tmp_path / "taken_figures.py").write_text(taken)
    with pytest.raises(InputError, match=r"no_such_figures': there is no such module"):
        figures(["no_such_figures"])
    with pytest.raises(InputError, match=r"empty_figures has no FIGURES"):
        figures(["empty_figures"])
    with pytest.raises(InputError, match=r"'kid' of figure 'kid' is taken"):
        figures(["taken_figures"])


def test_labels_say_which_way_is_better():
    arrows = {1: "↑", -1: "↓"}
    for key, score in scores(FIGURES).items():
        assert score.key == key
        if score.role in ("adapter", "base"):
            assert (score.label[-1] in "↑↓") == (score.better != 0), key
            assert score.label[-1] == arrows.get(score.better, score.label[-1]), key


@pytest.mark.parametrize("value", ["null", "miniature.judging", "[1]"])
def test_a_project_whose_figures_are_no_list_is_told_so(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    assert "kid" in project_figures()  # without a project: the library's
    (tmp_path / "params.yaml").write_text(f"evaluate:\n  figures: {value}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"^params.yaml: evaluate.figures = .*: must be a list of modules, \[\] for"):
        project_figures()

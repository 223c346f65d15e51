"""Two runs side by side: paired, refused where they do not compare, found as folder, revision and experiment."""

import copy
import json
import subprocess

import pytest
import torch

from aclora.cli.main import main
from aclora.core.errors import InputError
from aclora.evaluation.compare import Run, compare, styles_of
from aclora.metrics.contract import figures, scores

FIGURES = figures(["miniature.judging"])
SCORES = scores(FIGURES)
ENCODERS = {"fid": "judge 1", "clip": "clip 2", "dino": "dino 3", "image_reward": "reward 4", "judge": "judge 1"}


def run(seed=0, better=0.0, method="aclora"):
    """An evaluation of 24 prompts × 2 seeds; `better` is added to every score of the adapter's pictures."""
    rng = torch.Generator().manual_seed(seed)
    images = []
    for kind in ("adapter", "plain_adapter"):
        for i in range(48):
            clip, dino, reward, drift = torch.rand(4, generator=rng).tolist()
            values = {
                "clip_score": 70 + clip + better,
                "dino_score": dino + better,
                "image_reward": 1 + reward + better,
            }
            images.append({"set": kind, "prompt": f"p{i // 2}", "seed": str(i), "drift": drift} | values)
    reals = [{"file": str(j), "adapter": v + better, "base": 0} for j, v in enumerate(torch.rand(30, generator=rng))]
    scores = {"kid": 0.1, "fid": 50.0 - 10 * better, "drift": 0.3, "style_accuracy": 0.9}
    for key in ("clip_score", "dino_score", "image_reward"):
        scores[key] = sum(r[key] for r in images if r["set"] == "adapter") / 48
    about = {
        "reference": {"what": "30 drawings", "digest": "d", "held_out": True},
        "counts": {"generated": 48, "prompts": 24},
        "figures": {k: {"encoder": ENCODERS[FIGURES[k].encoder]} for k in scores},
    }
    return Run(scores, about, images, reals, method)


def by_name(rows):
    return {row.score.key: row for row in rows}


def test_a_run_against_itself():
    rows, improvement, left_out = compare(run(), run(), SCORES)
    assert improvement == 0
    assert not left_out
    for row in rows:
        assert row.a == row.b
        assert row.interval in (None, (0, 0))


def test_what_is_better_is_positive_and_sure():
    rows, improvement, _ = compare(run(better=1.0), run(), SCORES)
    found = by_name(rows)
    for key in ("clip_score", "dino_score", "image_reward"):
        low, high = found[key].interval
        assert low == pytest.approx(1)  # paired: the same noise in both leaves nothing unsure
        assert high == pytest.approx(1)
        assert found[key].change > 0
    assert found["fid"].change == pytest.approx(10 / 50)
    assert found["fid"].interval is None
    b = run().scores
    expected = (10 / 50 + 1 / b["clip_score"] + 1 / b["dino_score"] + 1 / b["image_reward"]) / 4
    assert improvement == pytest.approx(expected)


def test_chance_is_not_taken_for_a_difference():
    low, high = by_name(compare(run(1), run(2), SCORES)[0])["image_reward"].interval
    assert low < 0 < high


def test_a_rival_near_zero_is_left_out_and_said():
    rival = run()
    rival.scores["image_reward"] = 0.05
    rows, _, left_out = compare(run(), rival, SCORES)
    assert by_name(rows)["image_reward"].change is None
    assert left_out == {"image_reward": "the rival's 0.05 is too near 0 for a ratio"}


def spoilt(change):
    other = copy.deepcopy(run())
    change(other)
    return other


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.about["figures"]["fid"].update(encoder="inception 9"), "fid does not compare: A's is by judge 1"),
        (lambda r: r.about["reference"].update(digest="e"), "kid does not compare: A's is against 30 drawings"),
        (lambda r: r.images[3].update(seed="99"), "with seed .* was generated in only one"),
        (lambda r: r.images.pop(), "was generated in only one"),
    ],
)
def test_what_does_not_compare_is_refused(change, said):
    with pytest.raises(InputError, match=said):
        compare(run(), spoilt(change), SCORES)


def written(folder, run):
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(run.scores))
    (folder / "evaluation.json").write_text(json.dumps(run.about))
    (folder / "audit.json").write_text(json.dumps({"method": run.method}))
    for name, rows in (("per_image.csv", run.images), ("per_reference.csv", run.reals)):
        lines = [
            ",".join(rows[0]),
            *(",".join(str(float(v) if k == "adapter" else v) for k, v in r.items()) for r in rows),
        ]
        (folder / name).write_text("\n".join(lines) + "\n")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A git repository with two commits of one evaluation and an experiment as DVC keeps it."""

    def git(*args):
        named = ("-c", "user.name=t", "-c", "user.email=t@t")
        return subprocess.run(["git", *named, *args], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "main")
    written(tmp_path / "metrics/oil", run(method="lora"))
    written(tmp_path / "metrics/ink", run(3))
    git("add", "-A")
    git("commit", "-qm", "first")
    git("tag", "first")
    for file in (tmp_path / "metrics/oil").iterdir():
        file.unlink()
    (tmp_path / "metrics/oil").rmdir()
    written(tmp_path / "metrics/oil", run(better=1.0))
    git("commit", "-qam", "second")
    git("update-ref", f"refs/exps/ab/{'cd' * 19}/bold-fish", "HEAD")
    git("reset", "-q", "--hard", "first")
    return tmp_path


def test_folder_revision_and_experiment_are_the_same_run(project):
    experiment = styles_of("bold-fish")["oil"]()
    assert experiment.scores == run(better=1.0).scores
    assert styles_of("first")["oil"]().scores == styles_of(".")["oil"]().scores == styles_of("metrics")["oil"]().scores
    assert list(styles_of("first")) == ["ink", "oil"]


def test_the_command_prints_both_with_interval_and_average(project, capsys):
    assert main(["compare", "bold-fish", "main", "--style", "oil"]) == 0
    said = capsys.readouterr().out
    assert "oil: A = bold-fish (aclora), B = main (lora)" in said
    assert "[+1.000, +1.000]" in said
    assert "average improvement of A over B (FID, CLIP score, DINO score, ImageReward): +" in said
    assert main(["compare", "bold-fish", "main"]) == 0
    assert "ink: A = " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["bold-fsih", "main"],
            "'bold-fsih' is no folder, git revision or experiment; experiments: did you mean 'bold-fish'",
        ),
        (["main", "main", "--style", "oli"], "style 'oli' was not evaluated in both; did you mean 'oil'"),
    ],
)
def test_what_is_not_there_is_named(project, capsys, args, said):
    assert main(["compare", *args]) == 1
    assert said in capsys.readouterr().err


def test_a_folder_without_an_evaluation_is_named(tmp_path):
    with pytest.raises(InputError, match="no evaluation in it"):
        styles_of(str(tmp_path))

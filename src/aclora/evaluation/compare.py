"""Two evaluations side by side: both values, their paired difference with its interval, and the relative change."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from aclora.core.errors import InputError, did_you_mean
from aclora.metrics.contract import Score
from aclora.metrics.improvement import average_improvement, relative_change
from aclora.metrics.intervals import cluster_interval
from aclora.project import evaluations, git

IMAGES, REALS = "per_image.csv", "per_reference.csv"


@dataclass(frozen=True)
class Run:
    """One style's evaluation, as the evaluate stage wrote it, and the method that was trained."""

    scores: dict[str, float]
    about: dict
    images: list[dict]
    reals: list[dict]
    method: str


@dataclass(frozen=True)
class Row:
    """One score of both runs: a − b with its interval where it is a mean over pictures, and `change`, positive where a
    is better."""

    score: Score
    a: float
    b: float
    interval: tuple[float, float] | None
    change: float | None


def compare(a: Run, b: Run, scores: dict[str, Score]) -> tuple[list[Row], float | None, dict[str, str]]:
    """Every one of `scores` that both have, the average improvement of a over b, and what that left out and why.

    `scores` is `metrics.contract.scores` of the figures that the project knows. Raises `InputError` where the runs do
    not compare: other prompts or seeds, another reference, another encoder.
    """
    _check_pictures(a, b)
    rows = []
    for key, score in scores.items():
        if score.role not in ("adapter", "without_trigger") or None in (a.scores.get(key), b.scores.get(key)):
            continue
        _check_measure(score, a, b)
        values = a.scores[key], b.scores[key]
        change = relative_change(*values, score.better) if score.better else None
        rows.append(Row(score, *values, _interval(score, a, b), change))
    averaged = {s.key: s.better for s in scores.values() if s.role == "adapter" and s.figure.in_average}
    return rows, *average_improvement(a.scores, b.scores, averaged)


def _check_pictures(a, b):
    first, second = ({(r["set"], r["prompt"], r["seed"]) for r in run.images} for run in (a, b))
    if first != second:
        _, prompt, seed = sorted(first ^ second)[0]
        raise InputError(
            f"the runs do not compare: {prompt!r} with seed {seed} was generated in only one of them; use the same "
            "prompts, trigger and generate.seed, images_per_prompt, without_trigger in both"
        )


def _check_measure(score, a, b):
    one, other = (run.about["figures"].get(score.key, {"encoder": "nobody knows what"}) for run in (a, b))
    if one["encoder"] != other["encoder"]:
        raise InputError(
            f"{score.key} does not compare: A's is by {one['encoder']}, B's by {other['encoder']}; use the same "
            f"network in evaluate.{score.figure.encoder} and run the evaluate stage of both again"
        )
    ours, theirs = a.about["reference"], b.about["reference"]
    if score.figure.against == "reference" and ours["digest"] != theirs["digest"]:
        raise InputError(
            f"{score.key} does not compare: A's is against {ours['what']} ({ours['digest']}), B's against "
            f"{theirs['what']} ({theirs['digest']}); evaluate both against the same reference"
        )


def _interval(score, a, b):
    """95 % of the difference of what is a mean over the same prompts and seeds in both runs."""
    figure = score.figure
    if not figure.paired or score.role != "adapter":
        return None
    kind = "plain_adapter" if figure.of == "without_trigger" else "adapter"
    mine, theirs = (
        {(r["prompt"], r["seed"]): evaluations.number(r, figure.name, IMAGES) for r in run.images if r["set"] == kind}
        for run in (a, b)
    )
    prompts = [prompt for prompt, _ in mine]
    if len(set(prompts)) < 2:
        return None
    difference = torch.tensor([mine[key] - theirs[key] for key in mine], dtype=torch.float64)
    reals = None
    if figure.per_real:
        of = [[evaluations.number(r, figure.real_columns[0], REALS) for r in run.reals] for run in (a, b)]
        reals = torch.tensor(of[0], dtype=torch.float64) - torch.tensor(of[1], dtype=torch.float64)
    return cluster_interval(difference, prompts, reals)


def styles_of(where: str) -> dict[str, Callable[[], Run]]:
    """The evaluated styles of a folder (a project's, or its `metrics`), a git revision or a DVC experiment; each is
    read when it is called for. Raises `InputError` for a name that is none of these."""
    if not where.strip():
        raise InputError(f"{where!r} is no folder, git revision or experiment")
    if Path(where).is_dir():
        home = Path(where) / "metrics" if (Path(where) / "metrics").is_dir() else Path(where)
        found = [f.parent for f in sorted(home.glob("*/evaluation.json"))]
        if not found:
            raise InputError(f"{where}: no evaluation in it (metrics/<style>/evaluation.json): run `dvc repro` there")
        return {f.name: lambda f=f: read_run(f) for f in found}
    commit = _commit(where)
    listed = git.run("ls-tree", "-r", "--name-only", commit, "metrics").splitlines()
    names = [f.split("/")[1] for f in listed if f.endswith("/evaluation.json")]
    if not names:
        raise InputError(f"{where}: no evaluation is committed there (metrics/<style>/evaluation.json)")
    return {n: lambda n=n: _read(lambda file: git.run("show", f"{commit}:{file}"), Path("metrics", n)) for n in names}


def read_run(folder: Path) -> Run:
    """The evaluation in a style's metrics folder."""
    return _read(lambda file: Path(file).read_text(encoding="utf-8"), folder)


def _read(text, folder):
    def read(name):
        return evaluations.reading(text, folder / name)

    try:
        method = str(json.loads(read("audit.json")[0])["method"])
    except (InputError, ValueError, KeyError, TypeError):  # a champion's files are those of its evaluation
        method = ""
    return Run(
        evaluations.scores(*read("scores.json")),
        evaluations.about(*read("evaluation.json")),
        evaluations.rows(*read(IMAGES), evaluations.IMAGES),
        evaluations.rows(*read(REALS), evaluations.REALS),
        method,
    )


def _commit(where):
    """The commit of a git revision or a DVC experiment."""
    if commit := git.commit_of(where):
        return commit
    named = git.experiments()
    if where in named:
        return named[where]
    raise InputError(f"{where!r} is no folder, git revision or experiment; experiments: {did_you_mean(where, named)}")

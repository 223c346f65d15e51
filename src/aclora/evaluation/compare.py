"""Two evaluations side by side: both values, their paired difference with its interval, and the relative change."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from aclora.core.errors import InputError, did_you_mean
from aclora.evaluation.evaluate import FIGURES, PAIRED
from aclora.metrics.improvement import average_improvement, relative_change
from aclora.metrics.intervals import cluster_interval
from aclora.project import git


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
    """One figure of both runs: a − b with its interval where it is a mean over pictures, and `change`, positive
    where a is better."""

    name: str
    a: float
    b: float
    interval: tuple[float, float] | None
    change: float | None


def compare(a: Run, b: Run) -> tuple[list[Row], float | None, dict[str, str]]:
    """Every figure that both have, the average improvement of a over b, and what that left out and why.

    Raises `InputError` where they do not compare: other prompts or seeds, another reference, another encoder.
    """
    _same_pictures(a, b)
    rows = []
    for name, figure in FIGURES.items():
        if name in a.scores and name in b.scores and None not in (a.scores[name], b.scores[name]):
            _same_measure(name, figure, a, b)
            values = a.scores[name], b.scores[name]
            change = relative_change(*values, figure.better) if figure.better else None
            rows.append(Row(name, *values, _interval(name, a, b), change))
    return rows, *average_improvement(a.scores, b.scores)


def _same_pictures(a, b):
    first, second = ({(r["set"], r["prompt"], r["seed"]) for r in run.images} for run in (a, b))
    if first != second:
        _, prompt, seed = sorted(first ^ second)[0]
        raise InputError(
            f"the runs do not compare: {prompt!r} with seed {seed} was generated in only one of them; use the same "
            "prompts, trigger and generate.seed, images_per_prompt, without_trigger in both"
        )


def _same_measure(name, figure, a, b):
    one, other = (run.about["figures"][name] for run in (a, b))
    if one["encoder"] != other["encoder"]:
        raise InputError(
            f"{name} does not compare: A's is by {one['encoder']}, B's by {other['encoder']}; set evaluate."
            f"{figure.encoder} alike and run the evaluate stage of both again"
        )
    ours, theirs = a.about["reference"], b.about["reference"]
    if figure.against == "reference" and ours["digest"] != theirs["digest"]:
        raise InputError(
            f"{name} does not compare: A's is against {ours['what']} ({ours['digest']}), B's against {theirs['what']} "
            f"({theirs['digest']}); evaluate both against the same reference"
        )


def _interval(name, a, b):
    """95 % of the difference of what is a mean over the same prompts and seeds in both runs."""
    if name not in PAIRED:
        return None
    kind, column = PAIRED[name]
    mine, theirs = (
        {(r["prompt"], r["seed"]): float(r[column]) for r in run.images if r["set"] == kind} for run in (a, b)
    )
    prompts = [prompt for prompt, _ in mine]
    if len(set(prompts)) < 2:
        return None
    difference = torch.tensor([mine[key] - theirs[key] for key in mine], dtype=torch.float64)
    reals = None
    if name == "dino_score":
        of = [[float(r["adapter"]) for r in run.reals] for run in (a, b)]
        reals = torch.tensor(of[0], dtype=torch.float64) - torch.tensor(of[1], dtype=torch.float64)
    return cluster_interval(difference, prompts, reals)


def styles_of(where: str) -> dict[str, Callable[[], Run]]:
    """The evaluated styles of a folder (a project's, or its `metrics`), a git revision or a DVC experiment; each is
    read when it is called for. Raises `InputError` for a name that is none of these."""
    if Path(where).is_dir():
        home = Path(where) / "metrics" if (Path(where) / "metrics").is_dir() else Path(where)
        found = [f.parent for f in sorted(home.glob("*/evaluation.json"))]
        if not found:
            raise InputError(f"{where}: no evaluation in it (metrics/<style>/evaluation.json): run `dvc repro` there")
        return {f.name: lambda f=f: _read(lambda file: (f / file).read_text(encoding="utf-8")) for f in found}
    commit = _commit(where)
    listed = git.run("ls-tree", "-r", "--name-only", commit, "metrics").splitlines()
    names = [f.split("/")[1] for f in listed if f.endswith("/evaluation.json")]
    if not names:
        raise InputError(f"{where}: no evaluation is committed there (metrics/<style>/evaluation.json)")
    return {n: lambda n=n: _read(lambda file: git.run("show", f"{commit}:metrics/{n}/{file}")) for n in names}


def _read(text):
    return Run(
        json.loads(text("scores.json")),
        json.loads(text("evaluation.json")),
        list(csv.DictReader(io.StringIO(text("per_image.csv")))),
        list(csv.DictReader(io.StringIO(text("per_reference.csv")))),
        json.loads(text("audit.json"))["method"],
    )


def _commit(where):
    """The commit of a git revision or a DVC experiment."""
    try:
        return git.run("rev-parse", "--verify", "--quiet", f"{where}^{{commit}}").strip()
    except InputError:
        named = git.experiments()
        if where in named:
            return named[where]
    raise InputError(f"{where!r} is no folder, git revision or experiment; experiments: {did_you_mean(where, named)}")

"""Generated pictures against real ones: every figure, what made it, and how sure it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from aclora.core.errors import InputError, require
from aclora.metrics.clip_score import clip_score
from aclora.metrics.cmmd import clip_mmd
from aclora.metrics.copies import NEAR, nearest, own_distance
from aclora.metrics.dino_score import ceiling, to_real
from aclora.metrics.drift import likeness
from aclora.metrics.fid import frechet_distance
from aclora.metrics.intervals import cluster_interval
from aclora.metrics.kid import kernel_distance
from aclora.metrics.nfid import normalised_fid
from miniature.judging.accuracy import class_accuracy, colour_accuracy, object_accuracy


@dataclass(frozen=True)
class EvaluateConfig:
    """The `evaluate` section of params.yaml."""

    watch: str
    fid: str | None = None
    clip: str | None = None
    dino: str | None = None
    image_reward: str | None = None
    judge: str | None = None
    figures: tuple[str, ...] = ()
    watch_figures: str = ""
    reference: Literal["held_out", "training"] = "held_out"
    held_out: int = 256
    batch_size: int = 32

    def __post_init__(self):
        require(self.held_out >= 2, "held_out", self.held_out, "at least 2 pictures")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        for knob in ("fid", "clip", "dino", "image_reward", "judge"):
            name = getattr(self, knob)
            if name and Path(name).exists() and not Path(name).is_relative_to(self.watch):
                raise InputError(
                    f"watch = {self.watch!r}: must be a folder that holds {knob} = {name}, or DVC misses its changes"
                )


@dataclass(frozen=True)
class Figure:
    """One number of an evaluation: its name for people; which way is better (1 up, -1 down, 0 neither); the knob of
    the encoder that it rests on; and what pictures are compared with (a count of `counts`)."""

    label: str
    better: int
    encoder: str
    against: str


FIGURES = {
    "kid": Figure("KID ↓", -1, "fid", "reference"),
    "fid": Figure("FID ↓", -1, "fid", "reference"),
    "nfid": Figure("NFID, FID relative to the base's ↓", -1, "fid", "reference"),
    "cmmd": Figure("CMMD ↓", -1, "clip", "reference"),
    "clip_score": Figure("CLIP score ↑", 1, "clip", "prompts"),
    "dino_score": Figure("DINO score ↑", 1, "dino", "reference"),
    "image_reward": Figure("ImageReward ↑", 1, "image_reward", "prompts"),
    "style_accuracy": Figure("style recognised ↑", 1, "judge", "generated"),
    "object_accuracy": Figure("objects recognised ↑", 1, "judge", "prompts"),
    "colour_accuracy": Figure("colours recognised ↑", 1, "judge", "prompts"),
    "copies": Figure("share of copies ↓", -1, "clip", "training"),
    "nearest_training": Figure("distance to nearest training picture, real = 1", 0, "clip", "training"),
    "drift": Figure("drift without trigger ↓", -1, "dino", "without_trigger"),
    "drift_clip_score": Figure("CLIP score without trigger, minus base's", 0, "clip", "without_trigger"),
    "drift_dino_score": Figure("DINO score without trigger, minus base's", 0, "dino", "reference"),
    "drift_image_reward": Figure("ImageReward without trigger, minus base's", 0, "image_reward", "without_trigger"),
    "drift_style_accuracy": Figure("style recognised without trigger ↓", -1, "judge", "without_trigger"),
}


# Of figures that are means over pictures: the set and the column of per_image.csv that they are means of.
PAIRED = {k: ("adapter", k) for k in ("clip_score", "dino_score", "image_reward")} | {
    "drift": ("plain_adapter", "drift")
}


def made_by(name: str, encoders: dict[str, str], counts: dict[str, int]) -> dict:
    """What stands behind the score `name`: its encoder's label, and how many pictures were compared with how many."""
    figure = FIGURES[name.removeprefix("base_").removeprefix("real_").removesuffix("_minus_base")]
    looked_at = "without_trigger" if name.startswith("drift") else "generated"
    if name.startswith("real_"):
        looked_at = "reference"
    return {"encoder": encoders[figure.encoder], looked_at: counts[looked_at], figure.against: counts[figure.against]}


@dataclass(frozen=True)
class Seen:
    """What the encoders saw in n pictures; None where an encoder was left out.

    Features (n, d): `fid`, `clip`, `dino`, and `words`, CLIP's of the prompts. `reward` (n,). `judge`: its logits.
    """

    names: list[str]
    prompts: list[str] | None = None
    fid: Tensor | None = None
    clip: Tensor | None = None
    words: Tensor | None = None
    dino: Tensor | None = None
    reward: Tensor | None = None
    judge: dict[str, Tensor] | None = None


def distances(seen: Seen, real: Seen) -> dict[str, float]:
    """How far a set of pictures is from the real ones: kid, fid, cmmd, as far as there are features."""
    out = {}
    if seen.fid is not None:
        out |= {"kid": kernel_distance(seen.fid, real.fid), "fid": frechet_distance(seen.fid, real.fid)}
    if seen.clip is not None:
        out["cmmd"] = clip_mmd(seen.clip, real.clip)
    return out


def per_image(seen: Seen, real: Seen) -> dict[str, Tensor]:
    """clip_score, dino_score and image_reward of each picture (n,), float64, as far as there are features."""
    out = {}
    if seen.clip is not None:
        out["clip_score"] = clip_score(seen.clip, seen.words)
    if seen.dino is not None:
        out["dino_score"] = to_real(seen.dino, real.dino)
    if seen.reward is not None:
        out["image_reward"] = seen.reward.double()
    return out


def near(seen: Seen, training: Seen, real: Seen | None) -> dict[str, list]:
    """Of each picture its nearest training picture, the distance to it (that of real pictures to theirs is 1), and
    whether it is a copy."""
    if seen.clip is None:
        return {}
    own = own_distance(training.clip, real.clip if real else None)
    distance, index = nearest(seen.clip, training.clip)
    relative = distance / own
    return {
        "nearest_training": [training.names[i] for i in index.tolist()],
        "distance": relative,
        "copy": (relative < NEAR).long(),
    }


def recognised(seen: Seen, words: dict[str, list[str]] | None, style: str) -> dict[str, float]:
    """What the judge recognises of the prompts and the style; nothing where neither is of its drawn world."""
    if seen.judge is None:
        return {}
    known = words["colours"], words["objects"]
    out = {
        "object_accuracy": object_accuracy(seen.judge["object"], seen.prompts, *known),
        "colour_accuracy": colour_accuracy(seen.judge["colour"], seen.prompts, *known),
    }
    if style in words["styles"]:
        out["style_accuracy"] = class_accuracy(seen.judge["style"], [words["styles"].index(style)] * len(seen.prompts))
    return {k: v for k, v in out.items() if v is not None}


@dataclass(frozen=True)
class Evaluation:
    """`scores`: every figure, flat: the adapter's, the base model's as base_…, real pictures' own as real_….
    `intervals`: 95 % ones of those that are means over pictures. `images`: a row a generated picture.
    `reals`: of each real picture its mean cosine with the adapter's and with the base's pictures."""

    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    images: list[dict]
    reals: list[dict]


def evaluate(
    sets: dict[str, Seen],
    real: Seen,
    training: Seen,
    held_out: bool,
    words: dict[str, list[str]] | None,
    style: str,
) -> Evaluation:
    """All figures of `sets`: "adapter" and "base", and where there are any the pictures of prompts without the
    trigger, "plain_adapter" and "plain_base"; picture i of a pair has the same prompt and seed.

    `held_out`: nobody trained on the `real` pictures. `words`: what the judge knows.
    """
    of = {kind: per_image(seen, real) for kind, seen in sets.items()}
    close = {kind: near(seen, training, real if held_out else None) for kind, seen in sets.items()}
    reals = {kind: to_real(real.dino, seen.dino) for kind, seen in sets.items() if seen.dino is not None}
    scores, intervals = {}, {}

    def mean(name, values, prompts, of_reals=None):
        scores[name] = values.mean().item()
        if len(set(prompts)) > 1:
            intervals[name] = cluster_interval(values, prompts, of_reals)

    for kind, prefix in (("adapter", ""), ("base", "base_")):
        seen = sets[kind]
        found = distances(seen, real) | recognised(seen, words, style)
        if close[kind]:
            found["copies"] = close[kind]["copy"].double().mean().item()
            found["nearest_training"] = close[kind]["distance"].quantile(0.5).item()
        scores |= {prefix + key: value for key, value in found.items()}
        for key, values in of[kind].items():
            mean(prefix + key, values, seen.prompts, reals[kind] if key == "dino_score" else None)
    if real.fid is not None:
        scores["nfid"] = normalised_fid(sets["adapter"].fid, sets["base"].fid, real.fid)
    if real.dino is not None:
        scores["real_dino_score"] = ceiling(real.dino)
    if held_out and real.clip is not None:
        scores["real_copies"] = near(real, training, real)["copy"].double().mean().item()

    for kind, other, name in (("adapter", "base", "{}_minus_base"), ("plain_adapter", "plain_base", "drift_{}")):
        for key in of.get(kind, ()):
            of_reals = reals[kind] - reals[other] if key == "dino_score" else None
            mean(name.format(key), of[kind][key] - of[other][key], sets[kind].prompts, of_reals)
    if plain := sets.get("plain_adapter"):
        if plain.dino is not None:
            close["plain_adapter"]["drift"] = 1 - likeness(plain.dino, sets["plain_base"].dino)
            mean("drift", close["plain_adapter"]["drift"], plain.prompts)
        styled = recognised(plain, words, style).get("style_accuracy")
        scores |= {"drift_style_accuracy": styled} if styled is not None else {}
    return Evaluation(
        scores,
        intervals,
        [row for kind, seen in sets.items() for row in _rows(kind, seen, of[kind] | close[kind])],
        _table({"file": real.names, "adapter": reals["adapter"], "base": reals["base"]}) if reals else [],
    )


def _rows(kind, seen, columns):
    n = len(seen.names)
    return _table({"set": [kind] * n, "file": seen.names, "prompt": seen.prompts} | columns)


def _table(columns):
    lists = [v.tolist() if isinstance(v, Tensor) else v for v in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]

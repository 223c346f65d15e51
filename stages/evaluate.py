"""evaluate: generated pictures, with the adapter and of the bare base, against pictures of the style →
metrics/<style>/scores.json, and how each figure came about."""

from aclora.core.stage import run

import csv
import functools
import math
from pathlib import Path

import torch

from aclora.core import discovery, params
from aclora.core.errors import InputError
from aclora.core.files import require_writable, write_json, writing
from aclora.core.images import one_colour
from aclora.data.pictures import picture_files, read_generated, read_squares
from aclora.encoders.contract import digest_of
from aclora.evaluation.evaluate import EvaluateConfig, encoders_of, evaluate, picture_set
from aclora.metrics.contract import figures
from aclora.project.home import home
from aclora.tracking.live import scoring

CACHE, PICTURES = Path(".cache/features"), Path(".cache/pictures")


def main(name: str) -> None:
    with scoring(name):
        _evaluate(name)


def _evaluate(name):
    style = params.load(f"styles.{name}", params.StyleConfig)
    config = params.load("evaluate", EvaluateConfig)
    outs = [f"metrics/{name}/{out}" for out in ("scores.json", "evaluation.json", "per_image.csv", "per_reference.csv")]
    require_writable(*outs, CACHE / "features")
    known = figures(config.figures)
    encoders = encoders_of(config, known, home() / CACHE, "cuda" if torch.cuda.is_available() else "cpu")
    folder = Path("data/generated") / name
    generated = {kind: read_generated(folder, kind) for kind in ("adapter", "base")}
    if (folder / "without_trigger").is_dir():
        plain = folder / "without_trigger"
        generated |= {f"plain_{kind}": read_generated(plain, kind) for kind in ("adapter", "base")}
    flat = _of_one_colour(generated, folder)
    size = generated["adapter"][1][0].width
    training = _squares(Path(style.pictures), size)
    real, source, held_out = _reference(style, name, config, size)

    look = functools.partial(picture_set, encoders, known)
    sets = {
        kind: look([row["file"] for row in rows], pictures, [row["prompt"] for row in rows])
        for kind, (rows, pictures) in generated.items()
    }
    labels = {knob: encoder.labels for knob, encoder in encoders.items()}
    done = evaluate(known, sets, look(*real), look(*training), held_out, name, labels)

    counts = {
        "generated": len(sets["adapter"].names),
        "prompts": len(set(sets["adapter"].prompts or ())),
        "without_trigger": len(sets["plain_adapter"].names) if "plain_adapter" in sets else 0,
        "reference": len(real[0]),
        "training": len(training[0]),
    }
    digests = {knob: encoder.label for knob, encoder in encoders.items()}
    about = {score.key: score.rests_on(digests, counts) for score in done.scores}
    for score, interval in done.intervals.items():
        about[score.key]["interval"] = list(interval)
    reference = {"what": source, "held_out": held_out, "digest": digest_of(real[1])}
    seeds = {(kind, row["file"]): row["seed"] for kind, (rows, _) in generated.items() for row in rows}
    images = [row | {"seed": seeds[row["set"], row["file"]]} for row in done.images]
    with writing(*outs) as (scores, evaluation, of_images, of_reals):
        write_json(scores, _rounded({score.key: value for score, value in done.scores.items()}))
        write_json(evaluation, _rounded({"reference": reference, "counts": counts, "figures": about} | flat))
        _csv(images, of_images)
        _csv(done.reals, of_reals)


def _squares(folder, size):
    """A folder's pictures as the generated ones are, square and of their size, and their names."""
    files = picture_files(folder)
    return [str(f) for f in files], read_squares(files, size, home() / PICTURES)


def _of_one_colour(generated, folder):
    """What evaluation.json says of pictures that show nothing: how many of each set are of one colour; mostly nothing.

    Raises `InputError` where all of the adapter's are: no figure would mean anything.
    """
    counts = {}
    for kind, (rows, pictures) in generated.items():
        flat = [row["file"] for row, picture in zip(rows, pictures, strict=True) if one_colour(picture)]
        if kind == "adapter" and len(flat) == len(pictures):
            raise InputError(
                f"{folder / kind}: all {len(flat)} pictures are of one colour each, so the adapter is spoilt; lower "
                "train.learning_rate (or generate.guidance_scale, if it is high) and run again"
            )
        if flat:
            counts[kind] = len(flat)
            place = folder / kind.replace("plain_", "without_trigger/") / flat[0]
            print(f"warning: {len(flat)} of {len(pictures)} pictures are of one colour each; the first: {place}")
    return {"one_colour": counts} if counts else {}


def _reference(style, name, config, size):
    """(names, pictures) to compare with, what they are, and whether nobody trained on them."""
    chosen = style.pictures if config.reference == "training" else style.reference
    if (Path(chosen) / "__init__.py").is_file():  # a Python package that draws them
        package = discovery.outside(".".join(Path(chosen).parts), f"styles.{name}.reference")
        drawn = package.reference(name, config.held_out, size)
        return ([f"drawing {i}" for i in range(len(drawn))], drawn), f"{len(drawn)} held-out drawings", True
    names, pictures = _squares(Path(chosen), size)
    if len(names) < 2:
        raise InputError(f"{chosen} holds one picture; to compare with, at least 2 are needed: add some")
    own = Path(chosen) == Path(style.pictures)
    if own:
        print(
            f"note: {name} is compared with its own training pictures: figures against the reference then reward "
            f"copies (see docs/guides/judge.md); name held-out pictures in styles.{name}.reference if there are any"
        )
    return (names, pictures), f"{len(names)} {'training ' if own else ''}pictures of {chosen}", not own


def _csv(rows, file):
    with file.open("w", newline="", encoding="utf-8") as out:
        columns = dict.fromkeys(key for row in rows for key in row) or ["file"]
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_rounded(rows))


def _rounded(value):
    """Six significant digits: what a metric means, not its last bits. What is no number becomes null."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


if __name__ == "__main__":
    run(main, __doc__)

"""evaluate: generated pictures, adapter and base, against pictures of the style → metrics/<style>/scores.json."""

import json
from dataclasses import dataclass
from pathlib import Path

from aclora import params
from aclora.dataset import read_pictures
from aclora.errors import InputError, require
from aclora.metrics.accuracy import class_accuracy, colour_accuracy, object_accuracy
from aclora.metrics.copies import nearest_distance
from aclora.metrics.encoders import Judge, digest
from aclora.metrics.fid import frechet_distance
from aclora.metrics.kid import kernel_distance
from aclora.stage import run, writing


@dataclass(frozen=True)
class Evaluate:
    """The `evaluate` section of params.yaml."""

    judge: str
    held_out: int = 256

    def __post_init__(self):
        require(self.held_out >= 2, "held_out", self.held_out, "at least 2 pictures")


def main(name: str) -> None:
    style = params.load(f"styles.{name}", params.Style)
    config = params.load("evaluate", Evaluate)
    judge = Judge.from_pretrained(Path(config.judge))
    generated = Path("data/generated") / name
    rows = [json.loads(line) for line in (generated / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    prompts = [row["prompt"] for row in rows]
    reference, source = _reference(style, name, config.held_out)
    real = judge.look(reference)["features"]
    training = judge.look(read_pictures(Path(style.pictures)))["features"]
    own = nearest_distance(real, training).median().item()

    scores = {}
    for kind in ("adapter", "base"):
        seen = judge.look(read_pictures(generated / kind))
        distance = nearest_distance(seen["features"], training).median().item()
        scores[kind] = {
            "kid": kernel_distance(seen["features"], real),
            "fid": frechet_distance(seen["features"], real),
            "nearest_training": distance,
            "nearest_training_relative": distance / own if own > 0 else None,
            **_read(judge, seen, prompts, name),
        }
    scores["counts"] = {"generated": len(rows), "reference": len(reference), "training": len(training)}
    scores["encoder"] = f"judge {digest(Path(config.judge))}"
    scores["reference"] = source
    with writing(f"metrics/{name}/scores.json") as (out,):
        out.write_text(json.dumps(_rounded(scores), indent=1) + "\n", encoding="utf-8")


def _reference(style, name, count):
    """Pictures of the style that nobody trained on: drawn for the drawn styles, or a folder's."""
    if Path(style.reference) == Path("miniature/drawing"):
        from miniature.drawing import STYLES, held_out

        if name not in STYLES:
            raise InputError(
                f"styles.{name}.reference = {style.reference!r} draws {', '.join(STYLES)} only: "
                f"name a folder of pictures, {style.pictures} itself if there are no others"
            )
        return [picture for picture, _ in held_out(name, count)], f"{count} held-out drawings"
    if Path(style.reference) == Path(style.pictures):
        print(f"note: {name} is compared with its own training pictures; KID and FID then reward copies")
    return read_pictures(Path(style.reference)), style.reference


def _read(judge, seen, prompts, name):
    """What the judge recognises; it knows the drawn world alone."""
    words = judge.vocabulary
    known = words["colours"], words["objects"]
    out = {
        "object_accuracy": object_accuracy(seen["object"], prompts, *known),
        "colour_accuracy": colour_accuracy(seen["colour"], prompts, *known),
    }
    if name in words["styles"]:
        out["style_accuracy"] = class_accuracy(seen["style"], [words["styles"].index(name)] * len(prompts))
    return {k: v for k, v in out.items() if v is not None}


def _rounded(value):
    """Six significant digits: what a metric means, not its last bits."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    run(main, __doc__)

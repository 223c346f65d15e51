"""Measures the miniature and draws its card: models/miniature/card.json and card.png.

`--install` first copies what training left in the build folder to models/miniature.
"""

import argparse
import csv
import json
import random
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from aclora.backbone import Model, load_pipeline
from aclora.metrics.accuracy import class_accuracy, colour_accuracy, object_accuracy
from aclora.metrics.encoders import Judge
from aclora.sampling import Generate, contact_sheet, sample
from miniature.drawing import HELD_OUT, STYLES, draw, held_out, world
from miniature.judge import reconstructed, truth
from miniature.params import read
from miniature.vae import psnr

HOME = Path("models/miniature")
PROMPTS = (
    "a red house in a field",
    "a blue boat at sea with a sun",
    "a big orange cat in the desert",
    "a small yellow car on the left in the snow",
    "a purple fish and a green tree at sunset",
    "a white star to the left of a red flower at night",
)


def arrays(pictures):
    return np.stack([np.asarray(p) for p in pictures])


def images(pixels):
    return [Image.fromarray(p) for p in pixels]


def side_accuracy(logits, wanted):
    """Share of the objects that are there whose side is right; logits (n, o, 3), wanted (n, o)."""
    there = wanted >= 0
    return (logits.argmax(-1) == wanted)[there].double().mean().item()


def read_by(judge, pictures, scenes, style=None):
    """What the judge reads right in pictures that should show `scenes`."""
    seen, wanted = judge.look(pictures), truth(scenes, [style] * len(scenes))
    words, captions = judge.vocabulary, [s.caption for s in scenes]
    known = words["colours"], words["objects"]
    return {
        "object": object_accuracy(seen["object"], captions, *known),
        "colour": colour_accuracy(seen["colour"], captions, *known),
        "background": class_accuracy(seen["background"], wanted["background"].tolist()),
        "position": side_accuracy(seen["side"], wanted["side"]),
        "style": class_accuracy(seen["style"], wanted["style"].tolist()),
    }


def measure(pipe, judge, count: int) -> dict:
    """All figures: `count` prompts, half of them with pairs of colour and object never trained on."""
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    plain = [draw(HELD_OUT + i, size) for i in range(256)]
    sets = {style: held_out(style, 96, size) for style in STYLES}
    out = {
        "vae": {
            "psnr_plain": psnr(pipe.vae, arrays([p for p, _ in plain])),
            "psnr_styled": float(np.mean([psnr(pipe.vae, arrays([p for p, _ in s])) for s in sets.values()])),
        },
        "judge": {"plain": read_by(judge, [p for p, _ in plain], [s for _, s in plain])}
        | {style: read_by(judge, [p for p, _ in s], [c for _, c in s], style) for style, s in sets.items()},
    }
    # said in words alone: an unsaid side or size is the model's own choice, so it does not count
    scenes = [world.compose(random.Random(HELD_OUT + 10_000 + i), unseen=i % 2 == 1) for i in range(count)]
    drawn = [draw(HELD_OUT + 10_000 + i, size, unseen=i % 2 == 1)[0] for i in range(count)]
    config = Generate(prompts="", guidance_scale=4.0)
    made = list(sample(pipe, [s.caption for s in scenes], list(range(count)), config, size))
    through = images(reconstructed(pipe.vae, arrays(drawn)))
    said = [i for i, s in enumerate(scenes) if len(s.things) == 2 or " on the " in s.caption or "middle" in s.caption]
    for name, pictures in (("generated", made), ("ceiling", through)):
        out[name] = read_by(judge, pictures, scenes)
        picked = judge.look([pictures[i] for i in said])["side"]
        out[name]["position"] = side_accuracy(picked, truth([scenes[i] for i in said], [None] * len(said))["side"])
        odd = [i for i in range(count) if i % 2]
        out[name]["object_unseen_pairs"] = read_by(judge, [pictures[i] for i in odd], [scenes[i] for i in odd])[
            "object"
        ]
    out["prompts"] = {"count": count, "of_unseen_pairs": count // 2, "guidance_scale": 4.0, "num_inference_steps": 20}
    return out


def sheet(pipe, size):
    """Prompts × seeds, and below each style beside its reconstruction."""
    config = Generate(prompts="", guidance_scale=4.0)
    seeds = [0, 1, 2, 3, 4, 5]
    made = iter(sample(pipe, [p for p in PROMPTS for _ in seeds], seeds * len(PROMPTS), config, size))
    rows, cells = list(PROMPTS), [[next(made) for _ in seeds] for _ in PROMPTS]
    for style in STYLES:
        three = [p for p, _ in held_out(style, 3, size)]
        back = images(reconstructed(pipe.vae, arrays(three)))
        rows.append(f"{style}: drawn, and through the autoencoder")
        cells.append([p for pair in zip(three, back, strict=True) for p in pair])
    return contact_sheet(rows, [f"seed {s}" for s in seeds], cells, cell=128)


def megabytes(folder):
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def install(build: Path) -> None:
    """Copy what training left in `build` to its home, with how long it took."""
    trained = {}
    for part in ("vae", "text_to_image", "judge"):
        with (build / f"{part}.csv").open() as file:
            last = list(csv.reader(file))[-1]
        trained[part] = {"steps": int(last[0]), "minutes": float(last[1])}
    for part in ("pipeline", "judge"):
        shutil.rmtree(HOME / part, ignore_errors=True)
        shutil.copytree(build / part, HOME / part)
    params = read()
    for part, entry in trained.items():
        entry["samples"] = entry["steps"] * params[part]["schedule"]["batch_size"]
    trained["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    (HOME / "trained_on.json").write_text(json.dumps(trained, indent=1) + "\n", encoding="utf-8")


def rounded(value):
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--prompts", type=int, default=500)
    args = parser.parse_args()
    if args.install:
        install(Path(read()["build"]))
    folder = str(HOME / "pipeline")
    pipe = load_pipeline(Model(name=folder, watch=folder))
    judge = Judge.from_pretrained(HOME / "judge")
    card = measure(pipe, judge, args.prompts)
    card["sizes_mb"] = {part: megabytes(HOME / part) for part in ("pipeline", "judge")}
    card["trained_on"] = json.loads((HOME / "trained_on.json").read_text(encoding="utf-8"))
    text = json.dumps(rounded(card), indent=1)
    (HOME / "card.json").write_text(text + "\n", encoding="utf-8")
    sheet(pipe, pipe.unet.config.sample_size * pipe.vae_scale_factor).save(HOME / "card.png")
    print(text)


if __name__ == "__main__":
    main()

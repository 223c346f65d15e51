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

from aclora.core.model import Model, ModelConfig, load_model
from aclora.models.sampling import GenerateConfig, contact_sheet, sample
from miniature import captioner, clip, data, dino, reward
from miniature.drawing import HELD_OUT, STYLES, draw, held_out, world
from miniature.judge import truth
from miniature.judging.accuracy import class_accuracy, colour_accuracy, object_accuracy
from miniature.judging.encoder import Judge
from miniature.params import read
from miniature.vae import psnr

HOME = Path("models/miniature")
NETWORKS = ("judge", "clip", "dino", "captioner", "reward")  # beside the pipeline
# What each network is, for the README.md in its folder, a model card as the hub knows them. `trained_on` is what the
# library tells of a network's captions and figures.
WHAT = {
    "pipeline": "A Stable Diffusion of the real classes: prompts → pictures of 64 × 64 pixels.",
    "judge": "A classifier of objects, their colours and sides, backgrounds and styles.",
    "clip": "A CLIP: pictures and prompts in one space.",
    "dino": "A vision transformer, distilled from itself.",
    "captioner": "A BLIP that writes captions.",
    "reward": "ImageReward's architecture: how well a picture answers its prompt.",
}
SAMPLING = GenerateConfig(
    prompts="its own",  # of the card, PROMPTS and drawn scenes
    images_per_prompt=1,
    without_trigger=0,
    seed=0,
    num_inference_steps=20,
    guidance_scale=4.0,
    batch_size=16,
    adapter="trained",
    sheet_rows=1,
)
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


def read_by(judge, pictures, scenes, style="plain"):
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


def held_out_sets(size: int) -> dict[str, list]:
    """Drawings with their scenes that no part was trained on: plain ones of every pair, and of each style."""
    plain = [draw(HELD_OUT + i, size, unseen=None) for i in range(300)]
    return {"plain": plain} | {style: held_out(style, 100, size) for style in STYLES}


def pipeline(home: Path) -> Model:
    """The text-to-image model in `home`."""
    folder = str(home / "pipeline")
    return load_model(ModelConfig(name=folder, watch=folder, revision=None, family="stable_diffusion"))


def measure(home: Path, count: int) -> dict:
    """All figures of the networks in `home`: `count` prompts, half of them with pairs of colour and object never
    trained on, and held-out drawings."""
    model = pipeline(home)
    judge = Judge.from_pretrained(home / "judge")
    size = model.size
    sets = held_out_sets(size)
    quality = {name: psnr(model.vae, arrays([p for p, _ in drawn])) for name, drawn in sets.items()}
    return {
        "vae": {
            "psnr_plain": quality.pop("plain"),
            "psnr_styled": float(np.mean(list(quality.values()))),
            "psnr_in_style": quality,
        },
        **followed(model, judge, count, size),
        "judge": {
            name: read_by(judge, [p for p, _ in drawn], [s for _, s in drawn], name) for name, drawn in sets.items()
        },
        "clip": clip.measure(home / "clip", sets),
        "dino": dino.measure(home / "dino", sets),
        "reward": reward.measure(home / "reward", sets),
        "captioner": captioner.measure(home / "captioner", sets),
    }


def followed(model: Model, judge, count, size) -> dict:
    """What the judge finds of `count` prompts in the pictures generated, and, as their ceiling, in drawings of the same
    scenes through the autoencoder. An unsaid side is the model's own choice and does not count."""
    scenes = [world.compose(random.Random(HELD_OUT + 10_000 + i), unseen=i % 2 == 1) for i in range(count)]
    drawn = [draw(HELD_OUT + 10_000 + i, size, unseen=i % 2 == 1)[0] for i in range(count)]
    made = list(sample(model, [s.caption for s in scenes], list(range(count)), SAMPLING, size))
    through = images(data.reconstructed(model.vae, arrays(drawn)))
    said = [i for i, s in enumerate(scenes) if len(s.things) == 2 or " on the " in s.caption or "middle" in s.caption]
    odd = range(1, count, 2)
    out = {}
    for name, pictures in (("generated", made), ("ceiling", through)):
        out[name] = read_by(judge, pictures, scenes)
        for key, what, some in (("position", "position", said), ("object_unseen_pairs", "object", odd)):
            out[name][key] = read_by(judge, [pictures[i] for i in some], [scenes[i] for i in some])[what]
    out["prompts"] = {"count": count, "of_unseen_pairs": count // 2}
    out["prompts"] |= {knob: getattr(SAMPLING, knob) for knob in ("guidance_scale", "num_inference_steps")}
    return out


def sheet(model: Model):
    """Prompts × seeds, and below each style beside its reconstruction."""
    size = model.size
    seeds = [0, 1, 2, 3, 4, 5]
    made = iter(sample(model, [p for p in PROMPTS for _ in seeds], seeds * len(PROMPTS), SAMPLING, size))
    rows, cells = list(PROMPTS), [[next(made) for _ in seeds] for _ in PROMPTS]
    for style in STYLES:
        three = [p for p, _ in held_out(style, 3, size)]
        back = images(data.reconstructed(model.vae, arrays(three)))
        rows.append(f"{style}: drawn, and through the autoencoder")
        cells.append([p for pair in zip(three, back, strict=True) for p in pair])
    return contact_sheet(rows, [f"seed {s}" for s in seeds], cells, cell=128)


def readme(part: str) -> str:
    """The model card of one part of the miniature."""
    return (
        "---\ntrained_on: drawings of a small world alone\n---\n\n"
        f"# The miniature's {part}\n\n{WHAT[part]}\n\n"
        "It knows the drawings of `miniature/drawing` and nothing else; `models/miniature/card.json` says how well.\n"
    )


def megabytes(folder):
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def install(build: Path) -> None:
    """Copy what training left in `build` to its home, with how long it took."""
    trained = {}
    for part in ("vae", "text_to_image", *NETWORKS):
        with (build / f"{part}.csv").open() as file:
            last = list(csv.reader(file))[-1]
        trained[part] = {"steps": int(last[0]), "minutes": float(last[1])}
    for part in ("pipeline", *NETWORKS):
        shutil.rmtree(HOME / part, ignore_errors=True)
        shutil.copytree(build / part, HOME / part)
        (HOME / part / "README.md").write_text(readme(part), encoding="utf-8")
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
    card = measure(HOME, args.prompts)
    card["sizes_mb"] = {part: megabytes(HOME / part) for part in ("pipeline", *NETWORKS)}
    card["trained_on"] = json.loads((HOME / "trained_on.json").read_text(encoding="utf-8"))
    text = json.dumps(rounded(card), indent=1)
    (HOME / "card.json").write_text(text + "\n", encoding="utf-8")
    sheet(pipeline(HOME)).save(HOME / "card.png")
    print(text)


if __name__ == "__main__":
    main()

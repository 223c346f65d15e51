"""Held-out loss and pictures of several settings on one drawn style: the table in docs/decisions.md.

    python -m bench.sweep 'lora rank=4' 'aclora max_rank=16 restart_every=10' --epochs 300

Each setting is a method and its knobs; `learning_rate`, `batch_size` and `seed` go to training, the
rest to the method's own section. The held-out loss is the unweighted one at fixed times and noise, on drawings of
the style that no run sees. Settings run two at a time, one thread each.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import yaml

STYLE = "watercolor"
HELD_OUT = 48
OF_TRAINING = ("learning_rate", "batch_size", "seed")


def run(spec: str, epochs: int, marks: list[int], style: str) -> dict:
    """Train one setting; returns its spec, losses at `marks` (epochs), last I, and KID of 32 pictures."""
    import torch

    torch.set_num_threads(1)
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from aclora import adapters, backbone, params
    from aclora.captioning import with_trigger
    from aclora.dataset import read_pictures
    from aclora.metrics.copies import nearest, own_distance
    from aclora.metrics.encoders.judge import Judge
    from aclora.metrics.kid import kernel_distance
    from aclora.sampling import Generate, read_prompts, sample
    from aclora.training import Diffusion, Encoded, Train, fit
    from miniature.drawing import held_out

    name, *knobs = spec.split()
    knobs = dict(k.split("=") for k in knobs)
    train = {k: yaml.safe_load(v) for k, v in knobs.items() if k in OF_TRAINING}
    own = {k: yaml.safe_load(v) for k, v in knobs.items() if k not in OF_TRAINING}
    module = adapters.load(name)
    method = module.Adapter(params.build(module.Config, own, name, Path(spec)))
    base = params.load("train", Train)
    config = params.build(Train, vars(base) | {"epochs": epochs} | train, "train", Path(spec))
    model = params.load("model", backbone.Model)
    trigger = params.load(f"styles.{STYLE}", params.Style).trigger
    set_seed(config.seed)
    pipe = backbone.load_pipeline(model)
    size = backbone.native_size(pipe)

    def encoded(pictures, captions):
        mean, std = backbone.encode_pictures(pipe, pictures, size)
        return Encoded(mean, std, backbone.encode_prompts(pipe, [with_trigger(c, trigger) for c in captions], size))

    folder = Path("data/styles") / style
    own_pictures = read_pictures(folder)
    data = encoded(own_pictures, [f.read_text() for f in sorted(folder.glob("*.txt"))])
    unseen = held_out(style, HELD_OUT, size)
    unseen = encoded([p for p, _ in unseen], [s.caption for _, s in unseen])
    diffusion = Diffusion(pipe.unet, backbone.training_scheduler(pipe), backbone.predict)
    losses, last, moved = {0: diffusion.fixed_loss(unseen, draws=2)}, None, 0.0
    parameters = method.attach(pipe.unet)
    if not parameters:
        marks = []
    else:
        for record in fit(diffusion, data, method, parameters, config, Accelerator(cpu=True)):
            if record["event"] == "epoch" and record["epoch"] in marks:
                losses[record["epoch"]] = diffusion.fixed_loss(unseen, draws=2)
            if record["event"] == "restart":
                last = record["I"]
                moved = max(moved, abs(record["probe_after"] / record["probe_before"] - 1))
    trained = diffusion.fixed_loss(data, draws=8)
    generate = params.load("generate", Generate)
    prompts = [with_trigger(p, trigger) for p in read_prompts(Path(generate.prompts))]
    pictures = list(sample(pipe, prompts, [generate.seed + i for i in range(len(prompts))], generate, size))
    judge = Judge.from_pretrained(Path("models/miniature/judge"))
    real = judge.look([p for p, _ in held_out(style, 256, size)])["features"]
    training = judge.look(own_pictures)["features"]
    seen = judge.look(pictures)
    style_index = judge.vocabulary["styles"].index(style)
    return {
        "setting": spec,
        "held_out": losses,
        "train": trained,
        "I": last,
        "moved": moved,
        "kid": kernel_distance(seen["features"], real),
        "style": (seen["style"].argmax(-1) == style_index).double().mean().item(),
        "nearest": nearest(seen["features"], training)[0].median().item() / own_distance(training, real),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--style", default=STYLE)
    args = parser.parse_args()
    marks = sorted({max(1, args.epochs * k // 10) for k in (1, 2, 3, 5, 7, 10)})
    heads = [
        "setting",
        *(f"epoch {m}" for m in (0, *marks)),
        "training",
        "last I",
        "RESTART moved",
        "KID",
        "style",
        "nearest",
    ]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    with ProcessPoolExecutor(2) as pool:
        jobs = [pool.submit(run, s, args.epochs, marks, args.style) for s in args.settings]
        for job in jobs:
            r = job.result()
            losses = [f"{r['held_out'][m]:.4f}" if m in r["held_out"] else "" for m in (0, *marks)]
            rest = [f"{r['train']:.4f}", str(r["I"] or ""), f"{r['moved']:.4f}", f"{r['kid']:.3f}", f"{r['style']:.2f}"]
            print("| " + " | ".join([r["setting"], *losses, *rest, f"{r['nearest']:.2f}"]) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())

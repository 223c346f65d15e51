"""Settings × styles × seeds, trained and evaluated: the tables in docs/results/methods.md and docs/decisions/aclora.md.

    python -m bench.sweep 'lora rank=4' 'aclora max_rank=32 restart_on=product' --styles watercolor ink --seeds 0 1

Each setting is a method and its knobs; those of the section `train` go there, the rest to the method's own. All other
knobs are as params.yaml has them. Finished runs are kept in bench/build/sweep.jsonl and not repeated: a stopped sweep
continues. The held-out loss is the unweighted one at fixed times and noise, on drawings of the style that no run sees.
Each prompt is drawn once with the trigger and once without. Two runs at a time, one thread each.
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import mean

HELD_OUT = 48
TRIGGER = "zxq style"
DONE = Path("bench/build/sweep.jsonl")


def run(spec: str, style: str, seed: int, epochs: int) -> dict:
    """Train one setting on one style; its losses at some epochs, last I, and scores."""
    import torch

    torch.set_num_threads(1)
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from aclora.core import params, yaml_reader
    from aclora.core.method import method_named
    from aclora.core.model import ModelConfig, load_model
    from aclora.data.captions import with_trigger
    from aclora.data.pictures import picture_files, read_squares
    from aclora.evaluation.evaluate import evaluate, project_figures
    from aclora.models.sampling import GenerateConfig, read_prompts, sample
    from aclora.training.loop import Encoded, TrainConfig, fit, fixed_loss
    from miniature.drawing import held_out

    name, *knobs = spec.split()
    knobs = {k: yaml_reader.parse(v) for k, v in (knob.split("=") for knob in knobs)}
    train = {k: v for k, v in knobs.items() if k in TrainConfig.model_fields}
    module = method_named(name)
    own = params.value(name) | {k: v for k, v in knobs.items() if k not in train}
    method = module(params.build(module.config_type, own, name, Path(spec)))
    base = params.value("train") | {"epochs": epochs, "seed": seed}
    config = params.build(TrainConfig, base | train, "train", Path(spec))
    set_seed(config.seed)
    model = load_model(params.load("model", ModelConfig))
    size = model.size
    generate = params.load("generate", GenerateConfig)
    plain = read_prompts(Path(generate.prompts))
    prompts = {"": [with_trigger(p, TRIGGER) for p in plain], "plain_": plain}
    seeds = [generate.seed + i for i in range(len(plain))]

    def drawn_by(kind):
        return {prefix + kind: list(sample(model, p, seeds, generate, size)) for prefix, p in prompts.items()}

    def encoded(pictures, captions):
        mean, std = model.encode_pictures(pictures, size)
        return Encoded(mean, std, model.encode_prompts([with_trigger(c, TRIGGER) for c in captions], size))

    pictures = _once(Path("bench/build/base"), lambda: drawn_by("base"))
    folder = Path("data/styles") / style
    training = read_squares(picture_files(folder), size)
    data = encoded(training, [f.read_text() for f in sorted(folder.glob("*.txt"))])
    drawn = held_out(style, HELD_OUT, size)
    unseen = encoded([p for p, _ in drawn], [s.caption for _, s in drawn])
    marks = {max(1, epochs * k // 14) for k in (1, 2, 4, 7, 10, 14)}
    losses, last, moved = {0: fixed_loss(model, unseen, draws=2)}, None, 0.0
    if parameters := method.attach(model.network, model.adapter_layers):
        for record in fit(model, data, method, parameters, config, Accelerator(cpu=True)):
            if record["event"] == "epoch" and record["epoch"] in marks:
                losses[record["epoch"]] = fixed_loss(model, unseen, draws=2)
            if record["event"] == "restart":
                last = record["I"]
                moved = max(moved, abs(record["probe_after"] / record["probe_before"] - 1))
    trained = fixed_loss(model, data, draws=8)
    pictures |= drawn_by("adapter") if parameters else {p + "adapter": pictures[p + "base"] for p in prompts}
    look = _looking()
    names = [str(i) for i in range(len(plain))]
    sets = {kind: look(shown, names, prompts["plain_" if "plain" in kind else ""]) for kind, shown in pictures.items()}
    real = [p for p, _ in held_out(style, 256, size)]
    done = evaluate(project_figures(), sets, look(real), look(training), True, style, look.labels)
    about = {"setting": spec, "style": style, "seed": seed, "epochs": epochs}
    scores = {score.key: value for score, value in done.scores.items()}
    return about | {"held_out": losses, "train": trained, "I": last, "moved": moved, "scores": scores}


def _looking():
    """Pictures, and perhaps their names and prompts → what every encoder of params.yaml sees."""
    from aclora.core import params
    from aclora.evaluation.evaluate import EvaluateConfig, encoders_of, picture_set, project_figures

    known = project_figures()
    encoders = encoders_of(params.load("evaluate", EvaluateConfig), known, Path(".cache/features"), "cpu")

    def look(pictures, names=None, prompts=None):
        names = names or [str(i) for i in range(len(pictures))]
        return picture_set(encoders, known, names, pictures, prompts)

    look.labels = {knob: encoder.labels for knob, encoder in encoders.items()}
    return look


def _once(folder: Path, make) -> dict:
    """Sets of pictures by name, kept in `folder`: the base model's are the same in every run."""
    from aclora.data.pictures import picture_files, read_picture

    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.{id(make)}.part")
        for name, pictures in make().items():
            (part / name).mkdir(parents=True)
            for i, picture in enumerate(pictures):
                picture.save(part / name / f"{i:04}.png")
        if not folder.is_dir():
            part.replace(folder)
    return {f.name: [read_picture(p) for p in picture_files(f)] for f in sorted(folder.iterdir())}


def show(rows: list[dict]) -> None:
    """A line a setting: means over its styles and seeds."""
    from aclora.evaluation.evaluate import project_figures

    marks = list(rows[0]["held_out"])
    shown = [name for name in project_figures() if name in rows[0]["scores"]]
    heads = ["setting", "runs", *(f"loss {m}" for m in marks), "training", "last I", "RESTART moved", *shown]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for setting in dict.fromkeys(r["setting"] for r in rows):
        of = [r for r in rows if r["setting"] == setting]
        line = [setting, str(len(of))]
        line += [f"{mean(r['held_out'][m] for r in of):.4f}" if m in of[0]["held_out"] else "" for m in marks]
        line += [f"{mean(r['train'] for r in of):.4f}", ", ".join(str(r["I"]) for r in of if r["I"] is not None)]
        line += [f"{max(r['moved'] for r in of):.4f}"]
        line += [f"{mean(r['scores'][k] for r in of):.3f}" for k in shown]
        print("| " + " | ".join(line) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+")
    parser.add_argument("--epochs", type=int, default=140)
    parser.add_argument("--styles", nargs="+", default=["watercolor"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--each", action="store_true", help="a table for each style too")
    args = parser.parse_args()
    wanted = [(s, style, seed, args.epochs) for seed in args.seeds for style in args.styles for s in args.settings]
    DONE.parent.mkdir(exist_ok=True)
    lines = DONE.read_text(encoding="utf-8").splitlines() if DONE.exists() else []
    rows = {tuple(r[k] for k in ("setting", "style", "seed", "epochs")): r for r in map(json.loads, lines)}
    missing = [key for key in wanted if key not in rows]
    with ProcessPoolExecutor(2) as pool:
        for job in as_completed([pool.submit(run, *key) for key in missing]):
            row = json.loads(json.dumps(job.result()))
            rows[row["setting"], row["style"], row["seed"], row["epochs"]] = row
            with DONE.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"done: {row['setting']}, {row['style']}, seed {row['seed']}", file=sys.stderr, flush=True)
    chosen = [rows[key] for key in wanted]
    show(chosen)
    for style in args.styles if args.each else ():
        print(f"\n{style}:\n")
        show([r for r in chosen if r["style"] == style])


if __name__ == "__main__":
    main()

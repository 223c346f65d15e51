"""The `aclora` command."""

import argparse
import json
import sys
from pathlib import Path

from aclora import __version__
from aclora.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, or 1 after one line about what cannot be used."""
    parser = argparse.ArgumentParser(prog="aclora", description="Tools around the pipeline that `dvc repro` runs.")
    parser.add_argument("--version", action="version", version=f"aclora {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="check params.yaml, pictures, captions and prompts before any work begins")
    commands.add_parser("scores", help="the last run's scores of every style, adapter beside base")
    command = parser.parse_args(argv).command
    try:
        {"check": check, "scores": scores}[command]()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def check() -> None:
    """Read all that a run would read of the user's, and print what each style would train on."""
    from aclora import adapters, params
    from aclora.audit import Audit
    from aclora.backbone import Model
    from aclora.captioning import Captions, caption_folder
    from aclora.sampling import Generate, read_prompts
    from aclora.training import Train

    method = params.method()
    module = adapters.load(method)
    params.load(method, module.Config)
    train = params.load("train", Train)
    params.load("model", Model)
    params.load("audit", Audit)
    captions = params.load("captions", Captions)
    prompts = read_prompts(Path(params.load("generate", Generate).prompts))
    write = (lambda picture: "to be written") if captions.model else None
    by = f" by {captions.model}"
    for name in params.styles():
        style = params.load(f"styles.{name}", params.Style)
        rows = caption_folder(Path(style.pictures), style.trigger, write, "captioner")
        written = sum(r.source == "captioner" for r in rows)
        print(
            f"{name}: {len(rows)} pictures, {written} captions to be written{by if written else ''}; {method}, "
            f"{train.epochs} epochs; {len(prompts)} prompts"
        )


SHOWN = {
    "kid": "KID ↓",
    "fid": "FID ↓",
    "style_accuracy": "style recognised ↑",
    "object_accuracy": "object recognised ↑",
    "colour_accuracy": "colour recognised ↑",
    "nearest_training_relative": "distance to nearest training picture (held-out = 1)",
}


def scores() -> None:
    """Print metrics/<style>/scores.json of every style as a table."""
    from aclora import params

    for name in params.styles():
        folder = Path("metrics") / name
        try:
            found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{folder}/scores.json is missing: run `dvc repro` first") from None
        n = found["counts"]["generated"]
        print(f"\n{name}: {n} pictures against {found['reference']}, encoder {found['encoder']}")
        print(f"  {'':52}{'base':>10}{'adapter':>10}")
        for key, label in SHOWN.items():
            if key in found["base"]:
                print(f"  {label:52}{found['base'][key]:10.3f}{found['adapter'][key]:10.3f}")
        print(f"  pictures: {folder}/contact_sheet.png · adapter: models/adapters/{name}")

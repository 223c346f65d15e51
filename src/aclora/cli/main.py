"""The `aclora` command."""

import argparse
import json
import sys
from pathlib import Path

from aclora import __version__
from aclora.cli.lora import add_parsers
from aclora.core.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, after one line about what cannot be used 1, or what `refused` says."""
    parser = argparse.ArgumentParser(prog="aclora", description="Tools around the pipeline that `dvc repro` runs.")
    parser.add_argument("--version", action="version", version=f"aclora {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="check params.yaml, pictures, captions and prompts before any work begins")
    commands.add_parser("scores", help="the last run's scores of every style, adapter beside base")
    both = commands.add_parser(
        "compare",
        help="two runs side by side, paired, with intervals",
        epilog="example: aclora compare main my-experiment --style watercolor",
    )
    for which in ("A", "B"):
        both.add_argument(which, help="a git revision, a DVC experiment, or a folder (a project's or its metrics)")
    both.add_argument("--style", help="this one alone")
    plots = commands.add_parser(
        "plots",
        help="DVC's plots of the workspace and other runs, as one page that needs no network",
        epilog="example: aclora plots main my-experiment",
    )
    plots.add_argument("revisions", nargs="*", metavar="RUN", help="a git revision or a DVC experiment")
    plots.add_argument("--out", default="dvc_plots", help="the page's folder (%(default)s)")
    _add_tracking(commands)
    add_parsers(commands)
    args = parser.parse_args(argv)
    try:
        if hasattr(args, "run"):
            return args.run(args) or 0
        elif args.command == "compare":
            compare_runs(args.A, args.B, args.style)
        elif args.command == "plots":
            from aclora.report.dvc_plots import write

            print(write(args.revisions, Path(args.out)))
        else:
            {"check": check, "scores": scores}[args.command]()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(args, "refused", 1)
    return 0


def _add_tracking(commands) -> None:
    """The two commands around MLflow; both end with 2 where something cannot be used."""
    put = commands.add_parser(
        "publish",
        help="make the runs in MLflow what the files say; again and again if you like",
        epilog="example: aclora publish watercolor; MLFLOW_TRACKING_URI names another store than ./mlflow.db",
    )
    put.add_argument("styles", nargs="*", metavar="STYLE", help="one or several; none: all")
    put.add_argument("--all", action="store_true", help="every style (the same as naming none)")
    put.set_defaults(run=lambda args: publish([] if args.all else args.styles), refused=2)
    again = commands.add_parser(
        "reproduce",
        help="train a run of MLflow's again, apart from your files, and compare the adapters; 0: identical, 1: not",
        epilog="example: aclora reproduce watercolor@champion",
    )
    again.add_argument("run_name", metavar="RUN", help="a run's id, style@alias, or the beginning of a fingerprint")
    again.add_argument("--into", metavar="FOLDER", help="keep the work tree there; otherwise it is removed")
    again.set_defaults(run=lambda args: _reproduce(args.run_name, args.into), refused=2)


def publish(styles: list[str]) -> None:
    """Publish the runs of some styles, or all, and print where each is."""
    from aclora.core import params
    from aclora.tracking import store
    from aclora.tracking.publish import publish

    for style, address in publish(styles or params.styles()).items():
        print(f"{style}: {address}")
    if store.uri().startswith("sqlite"):
        print(f"in {store.uri()}; `make ui` shows it")


def _reproduce(name, into):
    from aclora.tracking.reproduce import reproduce

    return 0 if reproduce(name, Path(into) if into else None) else 1


def check() -> None:
    """Read all that a run would read of the user's, and print what each style would train on."""
    from aclora.audit.signatures import AuditConfig
    from aclora.core import params
    from aclora.core.method import method_named
    from aclora.data.captions import CaptionsConfig, caption_folder
    from aclora.models.sampling import GenerateConfig, read_prompts
    from aclora.models.stable_diffusion import ModelConfig
    from aclora.training.loop import TrainConfig

    method = params.method()
    module = method_named(method)
    params.load(method, module.config_type)
    train = params.load("train", TrainConfig)
    params.load("model", ModelConfig)
    params.load("audit", AuditConfig)
    captions = params.load("captions", CaptionsConfig)
    prompts = read_prompts(Path(params.load("generate", GenerateConfig).prompts))
    write = (lambda picture: "to be written") if captions.model else None
    by = f" by {captions.model}"
    for name in params.styles():
        style = params.load(f"styles.{name}", params.StyleConfig)
        rows = caption_folder(Path(style.pictures), style.trigger, write, "captioner")
        written = sum(r.source == "captioner" for r in rows)
        print(
            f"{name}: {len(rows)} pictures, {written} captions to be written{by if written else ''}; {method}, "
            f"{train.epochs} epochs; {len(prompts)} prompts"
        )


def scores() -> None:
    """Print metrics/<style>/scores.json of every style as a table, the adapter beside the base."""
    from aclora.core import params
    from aclora.evaluation.evaluate import project_figures
    from aclora.metrics.contract import scores as entries

    for name in params.styles():
        folder = Path("metrics") / name
        try:
            found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
            about = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{folder}/evaluation.json is missing: run `dvc repro` first") from None
        counts, reference = about["counts"], about["reference"]
        print(f"\n{name}: {counts['generated']} pictures, {counts['prompts']} prompts, against {reference['what']}")
        print(f"  {'':50}{'base':>9}{'adapter':>9}   {'95 % interval':19}{'of adapter − base'}")
        for key, figure in (
            (k, s) for k, s in entries(project_figures()).items() if s.role in ("adapter", "without_trigger")
        ):
            if found.get(key) is not None:
                base = found.get(f"base_{key}")
                shown = f"{base:9.3f}" if base is not None else " " * 9
                own, difference = (about["figures"].get(k, {}).get("interval") for k in (key, f"{key}_minus_base"))
                sure = f"{_interval(own) if own else '':19}{_interval(difference, '+') if difference else ''}"
                print(f"  {figure.label:50}{shown}{found[key]:9.3f}   {sure}".rstrip())
        for key, label in (("real_dino_score", "DINO score"), ("real_copies", "share of copies")):
            if found.get(key) is not None:
                print(f"  {label + ' of the real pictures themselves':50}{'':9}{found[key]:9.3f}")
        if not reference["held_out"]:
            print("  the reference is what was trained on: FID, KID, CMMD and DINO reward copies of it")
        labels = sorted({f["encoder"] for f in about["figures"].values()})
        print(f"  encoders: {', '.join(labels)}; what each figure means: docs/guides/judge.md")
        print(f"  pictures: {folder}/contact_sheet.png · adapter: models/adapters/{name}")


def compare_runs(first: str, second: str, style: str | None) -> None:
    """Print two evaluations side by side, for every style that both have."""
    from aclora.core.errors import did_you_mean
    from aclora.evaluation.compare import compare, styles_of
    from aclora.evaluation.evaluate import project_figures
    from aclora.metrics.contract import scores as entries

    one, other = styles_of(first), styles_of(second)
    both = [name for name in one if name in other]
    if not both or (style and style not in both):
        raise InputError(f"style {style or '…'!r} was not evaluated in both; {did_you_mean(style or '', both)}")
    for name in [style] if style else both:
        a, b = one[name](), other[name]()
        rows, improvement, left_out = compare(a, b, entries(project_figures()))
        counts = a.about["counts"]
        print(f"\n{name}: A = {first} ({a.method}), B = {second} ({b.method})")
        print(f"  {counts['generated']} pairs of prompt and seed against {a.about['reference']['what']}\n")
        print(f"  {'':50}{'A':>9}{'B':>9}{'A − B':>9}   {'95 % interval':18}{'change':>8}")
        for row in rows:
            interval = _interval(row.interval, "+") if row.interval else ""
            change = f"{row.change:+8.1%}" if row.change is not None else ""
            values = f"{row.a:9.3f}{row.b:9.3f}{row.a - row.b:+9.3f}"
            print(f"  {row.score.label:50}{values}   {interval:18}{change}".rstrip())
        if improvement is not None:
            print(f"\n  average improvement of A over B (FID, CLIP, DINO, ImageReward): {improvement:+.1%}")
        for key, why in left_out.items():
            print(f"  left out of the average: {project_figures()[key].label}, {why}")
        print(
            "  change is relative to |B|, positive where A is better; of FID, KID and CMMD there is no interval here:"
        )
        print("  they are not means over pictures, only runs with other seeds tell how far they scatter")
    missing = sorted(set(one) ^ set(other))
    if missing and not style:
        print(f"\nevaluated in only one of the two: {', '.join(missing)}")


def _interval(ends, sign=""):
    return f"[{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]"

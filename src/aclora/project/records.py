"""What a style's run consists of, read from its files and DVC's graph: all that MLflow shows, without MLflow."""

import json
from dataclasses import dataclass
from pathlib import Path

from aclora.core.adapter import read_history
from aclora.core.files import digest, read_json, read_jsonl
from aclora.project import dvc, fingerprint


@dataclass(frozen=True)
class Record:
    """One style's run: its inputs (`stages` as dvc.lock has them), its results, and what of these is shown.

    `series` and `scores` are (name, epoch) → value; `images` (name, step) → file, `files` file → folder of the run.
    """

    style: str
    fingerprint: str
    train_fingerprint: str
    digest: str  # of the adapter's folder, 64 hex digits
    stages: dict[str, dict]
    params: dict[str, str]
    tags: dict[str, str]
    series: dict[tuple[str, int], float]
    scores: dict[tuple[str, int], float]
    images: dict[tuple[str, int], Path]
    files: dict[Path, str]
    captions: list[dict]
    pictures: str


def read(style: str, root: Path) -> Record:
    """The run whose outputs are in `root`; `workspace.require_up_to_date` checks that they are current."""
    with dvc.opened(root) as repo:
        found = [s for s in repo.index.stages if s.addressing.endswith(f"@{style}") and not dvc.is_check(s.addressing)]
        stages = {s.addressing: _locked(s) for s in found}
    params = {}
    for stage in stages.values():
        params |= stage["params"]
    params["style"] = params.pop(f"styles.{style}")
    metrics, captions = root / "metrics" / style, root / "data/captions" / f"{style}.jsonl"
    history = read_history(adapter(style, root))
    epochs = max((line["epoch"] for line in history), default=0)
    figures = read_json(metrics / "evaluation.json")["figures"]
    results = sorted(f for f in metrics.rglob("*") if f.is_file() and not f.name.startswith("."))
    return Record(
        style=style,
        fingerprint=fingerprint.run_fingerprint(style, root),
        train_fingerprint=fingerprint.train_fingerprint(style, root),
        digest=digest(adapter(style, root)),
        stages=stages,
        params=flat(params),
        tags={f"made_by.{key}": made_by(figure) for key, figure in figures.items()}
        | {f"dvc.{name.partition('@')[0]}": json.dumps(stage["outs"]) for name, stage in stages.items()},
        series={(key, line["epoch"]): v for line in history for key, v in points(line).items()},
        scores={(k, epochs): v for k, v in read_json(metrics / "scores.json").items() if v is not None},
        images={("contact_sheet", epochs): metrics / "contact_sheet.png"}
        | _samples(root / "data/generated" / style, params["generate"]["sheet_rows"]),
        files={f: str(Path("metrics", f.relative_to(metrics).parent)) for f in results} | {captions: "captions"},
        captions=read_jsonl(captions),
        pictures=params["style"]["pictures"],
    )


def _locked(stage):
    """What dvc.lock says of a stage: its command, parameters, and the md5 of everything it read and wrote."""
    values = {}
    for dep in stage.deps:
        if dvc.holds_params(dep):
            values |= dep.hash_info.value or {}
    deps = {d.def_path: d.hash_info.value for d in stage.deps if not dvc.holds_params(d)}
    outs = {o.def_path: o.hash_info.value for o in stage.outs}
    return {"cmd": stage.cmd, "params": values, "deps": deps, "outs": outs}


def _samples(folder, count):
    """The first picture of each of the first prompts, with the adapter and without; the step is its number."""
    first = {}
    for i, row in enumerate(read_jsonl(folder / "prompts.jsonl")):
        first.setdefault(row["prompt"], i)
    steps = list(first.values())[:count]
    return {(kind, i): folder / kind / f"{i:04}.png" for kind in ("adapter", "base") for i in steps}


def adapter(style: str, root: Path) -> Path:
    """The folder of a style's adapter."""
    return root / "models/adapters" / style


def flat(values: dict, prefix: str = "") -> dict[str, str]:
    """Nested values as `section.key`: text; values that are not text, as JSON writes them."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return found


def points(record: dict) -> dict[str, float]:
    """The values in one line of a training's history that are plotted over the epochs; of kept energies the mean.

    The names begin with `train/`, which MLflow's pages show apart from the scores.
    """
    if record["event"] == "epoch":
        return {"train/loss": record["loss"]}
    found = {k: record.get(k) for k in ("p", "I", "probe_before", "probe_after")}
    kept = {k: [v for v in record.get(k, ()) if v is not None] for k in ("kept_A", "kept_B", "kept")}
    found |= {k: sum(values) / len(values) for k, values in kept.items() if values}
    return {f"train/{k}": v for k, v in found.items() if v is not None}


def made_by(figure: dict) -> str:
    """The encoder and the counts behind a figure, and its interval, in one line."""
    counts = [f"{v} {k}" for k, v in figure.items() if k not in ("encoder", "interval")]
    interval = [f"95 % interval {figure['interval']}"] if "interval" in figure else []
    return "; ".join([figure["encoder"], *counts, *interval])

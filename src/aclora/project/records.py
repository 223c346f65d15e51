"""What a style's run consists of, read from its files and DVC's graph: all that MLflow shows, without MLflow."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from aclora.core import yaml_reader
from aclora.core.adapter import read_history
from aclora.core.errors import InputError
from aclora.core.files import digest, read_jsonl
from aclora.project import dvc, evaluations, fingerprint

LOCK = "dvc.lock"
SERIES = "train/"  # how the names of a training's series begin: MLflow's pages show them apart from the scores


@dataclass(frozen=True)
class Results:
    """What is known of a style's run as soon as it is evaluated.

    `series` and `scores` are (name, epoch) → value; `digest` is that of the adapter's folder, 64 hex digits.
    """

    style: str
    fingerprint: str
    train_fingerprint: str
    digest: str
    params: dict[str, str]
    tags: dict[str, str]
    series: dict[tuple[str, int], float]
    scores: dict[tuple[str, int], float]


@dataclass(frozen=True)
class Record(Results):
    """One style's complete run: its inputs (`stages` as dvc.lock has them), its results, and what of these is shown.

    `lock` is `lock_digest` of these; `images` are (name, step) → file, `files` file → folder of the run.
    """

    lock: str
    stages: dict[str, dict]
    images: dict[tuple[str, int], Path]
    files: dict[Path, str]
    captions: list[dict]
    pictures: str


def inputs(style: str, root: Path) -> dict[str, str]:
    """The parameters of all stages of a style as params.yaml has them now, flat."""
    with dvc.opened(root) as repo:
        values = {}
        for stage in _stages(repo, style).values():
            for dep in stage.deps:
                values |= dep.read_params() if dvc.holds_params(dep) else {}
    return _flat_params(values, style)


def results(style: str, root: Path) -> Results:
    """The results in `root`, right after the evaluation: dvc.lock need not have them yet."""
    folder, metrics = adapter(style, root), root / "metrics" / style
    history = read_history(folder)
    epochs = max((line["epoch"] for line in history), default=0)
    figures = evaluations.about(*evaluations.text_of(metrics / "evaluation.json"))["figures"]
    scores = evaluations.scores(*evaluations.text_of(metrics / "scores.json"))
    return Results(
        style=style,
        fingerprint=fingerprint.run_fingerprint(style, root),
        train_fingerprint=fingerprint.train_fingerprint(style, root),
        digest=digest(folder),
        params=inputs(style, root),
        tags={f"made_by.{key}": made_by(figure) for key, figure in figures.items()},
        series={(key, line["epoch"]): v for line in history for key, v in points(line).items()},
        scores={(k, epochs): v for k, v in scores.items() if v is not None},
    )


def read(style: str, root: Path) -> Record:
    """The run whose outputs are in `root`; `workspace.require_up_to_date` checks that they are current."""
    known = results(style, root)
    stages = locked(style, root)
    section = {}
    for stage in stages.values():
        section |= stage["params"]
    metrics, captions = root / "metrics" / style, root / "data/captions" / f"{style}.jsonl"
    found = sorted(f for f in metrics.rglob("*") if f.is_file() and not f.name.startswith("."))
    epochs = max((step for _, step in known.scores), default=0)
    made = {f"dvc.{name.partition('@')[0]}": json.dumps(stage["outs"]) for name, stage in stages.items()}
    return Record(
        style=style,
        fingerprint=known.fingerprint,
        train_fingerprint=known.train_fingerprint,
        digest=known.digest,
        params=_flat_params(section, style),
        tags=known.tags | made,
        series=known.series,
        scores=known.scores,
        lock=lock_digest((root / LOCK).read_text(encoding="utf-8"), style),
        stages=stages,
        images={("contact_sheet", epochs): metrics / "contact_sheet.png"}
        | _samples(root / "data/generated" / style, section["generate"]["sheet_rows"]),
        files={f: str(Path("metrics", f.relative_to(metrics).parent)) for f in found} | {captions: "captions"},
        captions=read_jsonl(captions),
        pictures=section[f"styles.{style}"]["pictures"],
    )


def _flat_params(values, style):
    """A style's own section is called `style` in every run, so that two styles' runs can be compared."""
    return flat({"style" if key == f"styles.{style}" else key: value for key, value in values.items()})


def locked_styles(text: str) -> list[str]:
    """The styles that a dvc.lock knows, in its order."""
    names = (name.partition("@")[2] for name in _entries(text))
    return list(dict.fromkeys(name for name in names if name))


def lock_digest(text: str, style: str) -> str:
    """16 hex digits of what a dvc.lock says of a style's stages; empty if it knows none.

    Two commits in which they are equal hold the same run: nothing has to be checked out to know that.
    """
    of_style = {name: entry for name, entry in _entries(text).items() if name.partition("@")[2] == style}
    stages = {name: entry for name, entry in of_style.items() if not dvc.is_check(name)}
    if not stages:
        return ""
    kept = {
        name: [entry.get("cmd"), entry.get("params"), *(_hashes(entry.get(kind)) for kind in ("deps", "outs"))]
        for name, entry in stages.items()
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _entries(text):
    try:
        found = yaml_reader.parse(text)
    except Exception as error:  # of PyYAML, which core alone imports
        raise InputError(f"{LOCK} is not YAML: {' '.join(str(error).split())[:200]}") from None
    return found.get("stages") or {} if isinstance(found, dict) else {}


def _hashes(entries):
    """Path and hash of each dependency or out; sizes and counts say nothing more."""
    return sorted([e["path"], str(e.get(e.get("hash", "md5")))] for e in entries or ())


def locked(style: str, root: Path) -> dict[str, dict]:
    """The stages of a style in `root` with what dvc.lock says of them: `cmd`, `params`, `deps` and `outs`.

    Of a stage that never ran the hashes are None.
    """
    with dvc.opened(root) as repo:
        return {name: _locked(stage) for name, stage in _stages(repo, style).items()}


def _stages(repo, style):
    return {name: stage for name, stage in dvc.stages(repo).items() if name.partition("@")[2] == style}


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
    """The values in one line of a training's history that are plotted over the epochs; of kept energies the mean."""
    if record["event"] == "epoch":
        return {f"{SERIES}loss": record["loss"]}
    found = {k: record.get(k) for k in ("p", "I", "probe_before", "probe_after")}
    kept = {k: [v for v in record.get(k, ()) if v is not None] for k in ("kept_A", "kept_B", "kept")}
    found |= {k: sum(values) / len(values) for k, values in kept.items() if values}
    return {f"{SERIES}{k}": v for k, v in found.items() if v is not None}


def made_by(figure: dict) -> str:
    """The encoder and the counts behind a figure, and its interval, in one line."""
    counts = [f"{v} {k}" for k, v in figure.items() if k not in ("encoder", "interval")]
    interval = [f"95 % interval {figure['interval']}"] if "interval" in figure else []
    return "; ".join([figure["encoder"], *counts, *interval])

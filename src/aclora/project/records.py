"""What a style's run consists of, read from its files, DVC's graph and git: all that MLflow shows, without MLflow."""

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from aclora.core import params
from aclora.core.errors import InputError, did_you_mean
from aclora.project import fingerprint

LARGEST = 10_000_000  # bytes of a new file that git does not know yet and that is kept with a run


@dataclass(frozen=True)
class Record:
    """One style's run: what made it (`stages` as dvc.lock has them), what came out, and what of it is shown.

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


@dataclass(frozen=True)
class Code:
    """A work tree's state: its commit, what differs from it as a patch, and new files too large for the patch."""

    commit: str
    patch: bytes
    left_out: list[str]


def check(styles: list[str], root: Path) -> None:
    """Raise `InputError` for an unknown style, and where one's outputs are not those of its inputs as they stand."""
    known = params.styles(root / params.FILE)
    for style in styles:
        if style not in known:
            raise InputError(f"style {style!r} is unknown; {did_you_mean(style, known)}")
    with _repo(root) as repo:
        names = [s.addressing for s in repo.index.stages if s.addressing.partition("@")[2] in styles]
    # `--wait-for-lock`: another style may just be trained here
    command = ["dvc", "--wait-for-lock", "status", "--json", *names]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"dvc status: {complaint(done.stderr)}")
    for stage, why in json.loads(done.stdout).items():
        changed = sorted({name for entry in why for part in _mappings(entry) for name in part})
        about = f" ({', '.join(changed[:3])}{', …' * (len(changed) > 3)})" if changed else ""
        raise InputError(f"{stage} is out of date{about}: run `dvc repro` first, then what it gives can be published")


def read(style: str, root: Path) -> Record:
    """The run whose outputs stand in `root`; `check` says whether they are whole."""
    with _repo(root) as repo:
        stages = {s.addressing: _lock(s) for s in repo.index.stages if s.addressing.endswith(f"@{style}")}
    asked = {}
    for stage in stages.values():
        asked |= stage["params"]
    asked["style"] = asked.pop(f"styles.{style}")
    metrics, captions = root / "metrics" / style, root / "data/captions" / f"{style}.jsonl"
    history = read_lines(adapter(style, root) / "history.jsonl")
    epochs = max((line["epoch"] for line in history), default=0)
    figures = read_json(metrics / "evaluation.json")["figures"]
    shown = sorted(f for f in metrics.rglob("*") if f.is_file() and not f.name.startswith("."))
    return Record(
        style=style,
        fingerprint=fingerprint.run_fingerprint(style, root),
        train_fingerprint=fingerprint.train_fingerprint(style, root),
        digest=fingerprint.digest(adapter(style, root)),
        stages=stages,
        params=flat(asked),
        tags={f"made_by.{key}": made_by(figure) for key, figure in figures.items()}
        | {f"dvc.{name.partition('@')[0]}": json.dumps(stage["outs"]) for name, stage in stages.items()},
        series={(key, line["epoch"]): v for line in history for key, v in points(line).items()},
        scores={(k, epochs): v for k, v in read_json(metrics / "scores.json").items() if v is not None},
        images={("contact_sheet", epochs): metrics / "contact_sheet.png"}
        | _samples(root / "data/generated" / style, asked["generate"]["sheet_rows"]),
        files={f: str(Path("metrics", f.relative_to(metrics).parent)) for f in shown} | {captions: "captions"},
        captions=read_lines(captions),
        pictures=asked["style"]["pictures"],
    )


def _samples(folder, count):
    """The first picture of each of the first prompts, with the adapter and without; the step is its number."""
    first = {}
    for i, row in enumerate(read_lines(folder / "prompts.jsonl")):
        first.setdefault(row["prompt"], i)
    steps = list(first.values())[:count]
    return {(kind, i): folder / kind / f"{i:04}.png" for kind in ("adapter", "base") for i in steps}


def adapter(style: str, root: Path) -> Path:
    """The folder of a style's adapter."""
    return root / "models/adapters" / style


def flat(values: dict, prefix: str = "") -> dict[str, str]:
    """Nested values as `section.key`: text; what is no text as JSON writes it."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return found


def points(record: dict) -> dict[str, float]:
    """What of one line of a training's history is drawn over the epochs; of each matrix's kept energy the mean.

    The names begin with `train/`, by which MLflow's pages put them apart from the scores.
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


def code(root: Path, stages: dict[str, dict]) -> Code | None:
    """The state of the tree that gave `stages`; None outside of git.

    What the pipeline itself writes does not count. Of new files that git does not know, those count that the stages
    depend on, and DVC's own.
    """
    try:
        commit = git(root, "rev-parse", "HEAD").decode().strip()
    except InputError:
        return None
    with _repo(root) as repo:
        outs = [os.path.relpath(o.fs_path, root) for s in repo.index.stages for o in s.outs if s.cmd]
    inputs = {dep for stage in stages.values() for dep in stage["deps"]}
    new = git(root, "ls-files", "-oz", "--exclude-standard", ".").decode().split("\0")[:-1]
    new = [f for f in new if f.endswith(".dvc") or any(Path(f).is_relative_to(i) for i in inputs)]
    new = [f for f in new if not any(Path(f).is_relative_to(o) for o in outs)]
    left_out = [f for f in new if (root / f).stat().st_size > LARGEST]
    with tempfile.TemporaryDirectory() as scratch:  # an index of its own: the user's stays as it is
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        git(root, "read-tree", "HEAD", env=index)
        ours = [f":(exclude,literal){o}" for o in [*outs, "dvc.lock"]]
        git(root, "add", "-u", "--", ".", *ours, env=index)
        if kept := [f":(literal){f}" for f in new if f not in left_out]:
            git(root, "add", "--", *kept, env=index)
        patch = git(root, "diff", "--cached", "--binary", "HEAD", env=index)
    return Code(commit, patch, left_out)


def differences(root: Path, stages: dict[str, dict]) -> list[str]:
    """The parameters and files of `root` that are not what `stages` were run with, one line each."""
    found = []
    with _repo(root) as repo:
        for stage in repo.index.stages:
            recorded = stages.get(stage.addressing)
            if not recorded:
                continue
            for dep in stage.deps:
                if _is_params(dep):
                    now, then = flat(dep.read_params()), flat(recorded["params"])
                    keys = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
                    found += [f"{k} = {now.get(k)}, recorded {then.get(k)}" for k in keys]
                elif not dep.exists:
                    found.append(f"{dep.def_path} is missing")
                elif (now := dep.get_hash().value) != (then := recorded["deps"].get(dep.def_path)):
                    found.append(f"{dep.def_path} has md5 {now}, recorded {then}")
    return list(dict.fromkeys(found))


def git(root: Path, *args: str, env: dict | None = None, stdin: bytes | None = None) -> bytes:
    """What a git command in `root` prints; an `InputError` with its last line where it fails."""
    if not shutil.which("git"):
        raise InputError("git is missing: install it")
    quiet = ["-c", "core.hooksPath=/dev/null", "-c", "core.safecrlf=false"]
    done = subprocess.run(
        ["git", *quiet, *args], cwd=root, env=os.environ | (env or {}), input=stdin, capture_output=True
    )
    if done.returncode:
        raise InputError(f"git {args[0]}: {complaint(done.stderr.decode())}")
    return done.stdout


def complaint(text: str) -> str:
    """What a program says was wrong: DVC in a line that begins so, others in their last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["failed"]
    return next((line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")), lines[-1])


def read_json(file: Path) -> dict:
    """A JSON file's content."""
    return json.loads(file.read_text(encoding="utf-8"))


def read_lines(file: Path) -> list[dict]:
    """The lines of a JSONL file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _repo(root):
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        return Repo(str(root))
    except NotDvcRepoError:
        raise InputError(f"{root.resolve()} is no DVC project: run from the project's folder") from None


def _lock(stage):
    """What dvc.lock says of a stage: its command, parameters, and the md5 of everything it read and wrote."""
    values = {}
    for dep in stage.deps:
        if _is_params(dep):
            values |= dep.hash_info.value or {}
    deps = {d.def_path: d.hash_info.value for d in stage.deps if not _is_params(d)}
    outs = {o.def_path: o.hash_info.value for o in stage.outs}
    return {"cmd": stage.cmd, "params": values, "deps": deps, "outs": outs}


def _is_params(dep):
    return dep.hash_name == "params"


def _mappings(entry):
    """The names → changes in one entry of `dvc status --json`."""
    return [part for part in entry.values() if isinstance(part, dict)] if isinstance(entry, dict) else []

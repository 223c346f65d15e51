"""The state of the project's folder: whether its outputs are current, and how its code differs from a commit."""

import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from aclora.core import params
from aclora.core.errors import InputError, did_you_mean
from aclora.project import dvc, git
from aclora.project.records import LOCK, flat

LARGEST = 10_000_000  # bytes of an untracked file that a patch still includes


@dataclass(frozen=True)
class Code:
    """A commit, the work tree's differences from it as a patch, and untracked files that are too large for that."""

    commit: str
    patch: bytes
    left_out: list[str]


def require_up_to_date(styles: list[str]) -> None:
    """Raise `InputError` for an unknown style of the current folder, and for one with outputs that are out of date."""
    known = params.styles()
    for style in styles:
        if style not in known:
            raise InputError(f"style {style!r} is unknown; {did_you_mean(style, known)}")
    if why := stale(styles, Path()):
        raise InputError(f"{why}: run `dvc repro` first, then its results can be published")


def stale(styles: list[str], root: Path) -> str | None:
    """The first stage of `styles` in `root` that is out of date, and its files; None if all are up to date.

    Raises `InputError` while another dvc runs one of them.
    """
    with dvc.opened(root) as repo:
        names = [s.addressing for s in repo.index.stages if s.addressing.partition("@")[2] in styles]
    found = dvc.status(names, root)
    if found is None:
        raise InputError(f"another dvc is running a stage of {', '.join(styles)}: repeat when it has finished")
    for stage, changes in found.items():
        paths = sorted({path for entry in changes for part in _mappings(entry) for path in part})
        return f"{stage} is out of date" + (f" ({', '.join(paths[:3])}{', …' * (len(paths) > 3)})" if paths else "")
    return None


def _mappings(entry):
    """The paths → changes in one entry of DVC's status."""
    return [part for part in entry.values() if isinstance(part, dict)] if isinstance(entry, dict) else []


def code(root: Path, stages: dict[str, dict], base: str = "HEAD") -> Code | None:
    """The state of the tree in which `stages` ran, as what differs from the commit `base`; None outside of git.

    There is no patch where nothing that these stages read differs: another style's parameters or pictures do not count,
    nor does what the pipeline itself writes. Otherwise it holds all differences, so that the code fits together.
    Untracked files are in it if a stage depends on them or if they are DVC's.
    """
    try:
        commit = git.run("rev-parse", base, folder=root).strip()
    except InputError:
        return None
    with dvc.opened(root) as repo:
        outs = [os.path.relpath(o.fs_path, root) for s in repo.index.stages for o in s.outs if s.cmd]
    inputs = {dep for stage in stages.values() for dep in stage["deps"]}
    untracked = git.run("ls-files", "-oz", "--exclude-standard", ".", folder=root).split("\0")[:-1]
    new = [f for f in untracked if f.endswith(".dvc") or _touches(f, inputs)]
    new = [f for f in new if not any(Path(f).is_relative_to(o) for o in outs)]
    left_out = [f for f in new if (root / f).stat().st_size > LARGEST]
    excluded = [f":(exclude,literal){o}" for o in [*outs, LOCK]]
    with tempfile.TemporaryDirectory() as scratch:
        # an index of its own: the user's stays as it is
        here = {"folder": root, "env": {"GIT_INDEX_FILE": str(Path(scratch) / "index")}, "config": git.NO_HOOKS}
        git.run("read-tree", "HEAD", **here)
        git.run("add", "-u", "--", ".", *excluded, **here)
        if included := [f":(literal){f}" for f in new if f not in left_out]:
            git.run("add", "--", *included, **here)
        patch = git.run_bytes("diff", "--cached", "--binary", base, "--", ".", *excluded, **here)
        names = git.run("diff", "--cached", "--name-only", "--relative", "-z", base, "--", ".", *excluded, **here)
    changed = [name for name in names.split("\0") if name] + left_out
    if not any(_matters(name, root, stages, commit) for name in changed):
        return Code(commit, b"", [])
    return Code(commit, patch, [f for f in left_out if _touches(f, inputs)])


def _matters(file: str, root: Path, stages: dict[str, dict], base: str) -> bool:
    """Whether a file that differs from the commit `base` makes a difference for these stages."""

    def then():
        return params.parse(git.run("show", f"{base}:./{file}", folder=root))

    inputs = {dep for stage in stages.values() for dep in stage["deps"]}
    try:
        if file == str(params.FILE):
            before, now = then(), params.parse((root / file).read_text(encoding="utf-8"))
            keys = {key for stage in stages.values() for key in stage["params"]}
            return any(_at(before, key) != _at(now, key) for key in keys)
        if file == "dvc.yaml":
            before, now = then(), params.parse((root / file).read_text(encoding="utf-8"))
            names = {name.partition("@")[0] for name in stages}
            return any(_definition(before, name) != _definition(now, name) for name in names)
    except Exception:  # one of them cannot be read
        return True
    return _touches(file, inputs)


def _touches(file: str, inputs: Collection[str]) -> bool:
    """Whether a file is one of the inputs, inside of one, or the .dvc file of one."""
    data = Path(file.removesuffix(".dvc"))
    return any(Path(file).is_relative_to(i) or data.is_relative_to(i) or Path(i).is_relative_to(data) for i in inputs)


def _at(values, key):
    """The value of a parameter ("train", "styles.ink"); None where there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _definition(pipeline, name):
    """What decides what a stage of dvc.yaml does; how its results are plotted does not."""
    stage = pipeline["stages"].get(name) or {}
    stage = stage.get("do", stage)
    return [stage.get(key) for key in ("cmd", "wdir", "deps", "params", "outs", "metrics")], pipeline.get("vars")


def differences(root: Path, stages: dict[str, dict]) -> list[str]:
    """The parameters and files of `root` that are not those with which `stages` ran, one line each."""
    found = []
    with dvc.opened(root) as repo:
        for stage in repo.index.stages:
            recorded = stages.get(stage.addressing)
            if not recorded:
                continue
            for dep in stage.deps:
                if dvc.holds_params(dep):
                    now, then = flat(dep.read_params()), flat(recorded["params"])
                    keys = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
                    found += [f"{k} = {now.get(k)}, recorded {then.get(k)}" for k in keys]
                elif not dep.exists:
                    found.append(f"{dep.def_path} is missing")
                elif (now := dep.get_hash().value) != (then := recorded["deps"].get(dep.def_path)):
                    found.append(f"{dep.def_path} has md5 {now}, recorded {then}")
    return list(dict.fromkeys(found))

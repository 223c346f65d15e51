"""What a training and a whole run depend on, as one hash each.

Read from DVC's own graph: what dvc.yaml declares is what counts. No clock, no path of a machine and no id is part
of it: the same inputs have the same fingerprint everywhere.
"""

import hashlib
import json
from pathlib import Path

from aclora.core.errors import InputError, did_you_mean

TRAIN = "train-aclora"


def train_fingerprint(style: str, root: Path = Path(".")) -> str:
    """64 hex digits: command, parameters and dependencies (code, captions, pictures, models) of a style's training.

    It names the folder of the training's checkpoints and stands in the adapter's header. Raises `InputError` for an
    unknown style, for a missing dependency, and outside of a DVC project.
    """
    stages = _stages(style, root)
    return _digest([stages[TRAIN]], root)


def run_fingerprint(style: str, root: Path = Path(".")) -> str:
    """64 hex digits: the same over all stages of a style, without what one of them makes for another."""
    stages = _stages(style, root)
    made = {str(out.fs_path) for stage in stages.values() for out in stage.outs}
    return _digest(list(stages.values()), root, made)


def digest(path: Path) -> str:
    """Hex sha256 of a file, or of a folder's files with their names; Python's byte code does not count."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(f for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    listed = {f.relative_to(path).as_posix(): digest(f) for f in files}
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _stages(style, root):
    """The style's stages by their names in dvc.yaml."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            own = Path(repo.root_dir) / "dvc.yaml"
            stages = [s for s in repo.index.stages if Path(s.path) == own and "@" in s.name]
    except NotDvcRepoError:
        raise InputError(f"{root.resolve()} is not a DVC project: run from the project's folder") from None
    found = {name: s for s in stages for name, key in [s.name.split("@")] if key == style}
    if TRAIN not in found:
        styles = [key for s in stages for name, key in [s.name.split("@")] if name == TRAIN]
        raise InputError(f"style {style!r} is unknown; {did_you_mean(style, styles)}")
    return found


def _digest(stages, root, made=frozenset()):
    """The hash over stages' commands, parameters and dependencies but those in `made`."""
    from dvc.dependency.param import ParamsDependency

    root = root.resolve()
    about = {}
    for stage in stages:
        params = [d.read_params() for d in stage.deps if isinstance(d, ParamsDependency)]
        files = [Path(d.fs_path) for d in stage.deps if not isinstance(d, ParamsDependency)]
        files = sorted({f for f in files if not _within(f, made)})
        if missing := [f for f in files if not f.exists()]:
            raise InputError(f"{missing[0]} is missing: {stage.name} depends on it (dvc.yaml)")
        deps = {f.relative_to(root).as_posix() if f.is_relative_to(root) else f.name: digest(f) for f in files}
        about[stage.name] = {"cmd": stage.cmd, "params": params, "deps": deps}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _within(file, folders):
    return any(file.is_relative_to(folder) for folder in folders)

"""What a training and a whole run depend on, as one hash each.

dvc.yaml decides what counts, by the dependencies and parameters of its stages; `aclora.core.files.digest` hashes it.
No clock, no path of a machine and no id is part of it: the same inputs have the same fingerprint everywhere.
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from aclora.core.errors import InputError, did_you_mean
from aclora.core.files import digest
from aclora.project import dvc

TRAIN = "train-aclora"


def train_fingerprint(style: str, root: Path = Path(".")) -> str:
    """64 hex digits: command, parameters and dependencies (code, captions, pictures, models) of a style's training.

    It names the folder of the training's checkpoints and stands in the adapter's header. Raises `InputError` for an
    unknown style, for a missing dependency, and outside of a DVC project.
    """
    with dvc.opened(root) as repo:
        return _hash([_stages(repo, style)[TRAIN]], root)


def is_recorded(style: str, root: Path = Path(".")) -> bool:
    """Whether dvc.lock has the result of this very training of a style: of these parameters and dependencies."""
    with dvc.opened(root) as repo:
        stage = _stages(repo, style)[TRAIN]
        recorded = all(out.hash_info for out in stage.outs) and not stage.cmd_changed
        return recorded and not any(dep.status() for dep in stage.deps)


def run_fingerprint(style: str, root: Path = Path(".")) -> str:
    """64 hex digits: the same for all stages of a style, without what one of them makes for another."""
    with dvc.opened(root) as repo:
        stages = _stages(repo, style).values()
        made = {str(out.fs_path) for stage in stages for out in stage.outs} | set(dvc.marks(repo))
        return _hash(stages, root, made)


def _stages(repo, style):
    """The style's stages by their names in dvc.yaml."""
    stages = dvc.stages(repo)
    found = {name.partition("@")[0]: s for name, s in stages.items() if name.partition("@")[2] == style}
    if TRAIN not in found:
        styles = [name.removeprefix(f"{TRAIN}@") for name in stages if name.startswith(f"{TRAIN}@")]
        raise InputError(f"style {style!r} is unknown; {did_you_mean(style, styles)}")
    return found


def _hash(stages, root, outs: Collection[str] = ()):
    """The hash of the stages' commands, parameters and dependencies, except those inside of `outs`."""
    root = root.resolve()
    inputs = {}
    for stage in stages:
        params = [dep.read_params() for dep in stage.deps if dvc.holds_params(dep)]
        files = sorted({Path(dep.fs_path) for dep in stage.deps if not dvc.holds_params(dep)})
        files = [f for f in files if not any(f.is_relative_to(out) for out in outs)]
        if missing := [f for f in files if not f.exists()]:
            raise InputError(f"{missing[0]} is missing: {stage.name} depends on it (dvc.yaml)")
        deps = {f.relative_to(root).as_posix() if f.is_relative_to(root) else f.name: digest(f) for f in files}
        inputs[stage.name] = {"cmd": stage.cmd, "params": params, "deps": deps}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

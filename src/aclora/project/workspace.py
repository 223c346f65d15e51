"""The state of the project's folder: whether its outputs are current, and how its code differs from a commit."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from aclora.core import params
from aclora.core.errors import InputError, did_you_mean
from aclora.project import dvc, git
from aclora.project.records import flat

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
    with dvc.opened() as repo:
        found = [s.addressing for s in repo.index.stages if s.addressing.partition("@")[2] in styles]
    names = [name for name in found if not dvc.is_check(name)]
    stale = dvc.status(names)
    if stale is None:
        raise InputError(f"another dvc is running a stage of {', '.join(styles)}: repeat when it has finished")
    for stage, changes in stale.items():
        paths = sorted({path for entry in changes for part in _mappings(entry) for path in part})
        what = f" ({', '.join(paths[:3])}{', …' * (len(paths) > 3)})" if paths else ""
        raise InputError(f"{stage} is out of date{what}: run `dvc repro` first, then its results can be published")


def _mappings(entry):
    """The paths → changes in one entry of DVC's status."""
    return [part for part in entry.values() if isinstance(part, dict)] if isinstance(entry, dict) else []


def code(root: Path, stages: dict[str, dict]) -> Code | None:
    """The state of the tree in which `stages` ran; None outside of git.

    What the pipeline itself writes does not count. Untracked files count if a stage depends on them or they are DVC's.
    """
    try:
        commit = git.run("rev-parse", "HEAD", folder=root).strip()
    except InputError:
        return None
    with dvc.opened(root) as repo:
        outs = [os.path.relpath(o.fs_path, root) for s in repo.index.stages for o in s.outs if s.cmd]
    inputs = {dep for stage in stages.values() for dep in stage["deps"]}
    untracked = git.run("ls-files", "-oz", "--exclude-standard", ".", folder=root).split("\0")[:-1]
    new = [f for f in untracked if f.endswith(".dvc") or any(Path(f).is_relative_to(i) for i in inputs)]
    new = [f for f in new if not any(Path(f).is_relative_to(o) for o in outs)]
    left_out = [f for f in new if (root / f).stat().st_size > LARGEST]
    with tempfile.TemporaryDirectory() as scratch:
        # an index of its own: the user's stays as it is
        here = {"folder": root, "env": {"GIT_INDEX_FILE": str(Path(scratch) / "index")}, "config": git.NO_HOOKS}
        git.run("read-tree", "HEAD", **here)
        git.run("add", "-u", "--", ".", *(f":(exclude,literal){o}" for o in [*outs, "dvc.lock"]), **here)
        if included := [f":(literal){f}" for f in new if f not in left_out]:
            git.run("add", "--", *included, **here)
        patch = git.run_bytes("diff", "--cached", "--binary", "HEAD", **here)
    return Code(commit, patch, left_out)


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

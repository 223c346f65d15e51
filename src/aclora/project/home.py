"""The project's own folder, also for what runs in an experiment's copy of the project."""

import os
from pathlib import Path


def home() -> Path:
    """The absolute path of the folder that keeps checkpoints, caches and MLflow's store.

    It is the current folder. In a copy that `dvc exp run --temp` or DVC's queue made, and deletes at the end, it is the
    project that the copy was made from: DVC names it in `DVC_ROOT`, which counts only if the copy is inside of it.
    """
    here = Path.cwd()
    if parent := os.environ.get("DVC_ROOT"):
        copies = Path(parent) / ".dvc/tmp/exps"
        if here.resolve().is_relative_to(copies.resolve()):
            return Path(parent).resolve()
    return here

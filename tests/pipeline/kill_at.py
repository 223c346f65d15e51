"""Train a style and be killed, as by `kill -9`, at the n-th time that a point is reached.

    python -m tests.pipeline.kill_at POINT N STYLE

restart: inside a RESTART, the new factors in place, the moments not yet carried · write: inside the writing of a
checkpoint, half of it on disk · rename: the checkpoint written, not yet in its place · outs: the first out in place.
"""

from aclora.core.stage import run

import json
import os
import signal
import sys
from pathlib import Path

import aclora.methods.aclora
import aclora.training.checkpoints
from aclora.core.files import part_of
from stages import train


def main() -> None:
    point, left = sys.argv.pop(1), int(sys.argv.pop(1))

    def reached() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    carry, save, replace = aclora.methods.aclora.carry_moments, aclora.training.checkpoints.save, Path.replace

    def killed_in_restart(*args):
        if reached():
            die()
        return carry(*args)

    def killed_in_write(tensors, about):
        content = save(tensors, about)
        if reached():
            folder = next(aclora.training.checkpoints.FOLDER.iterdir())
            with part_of(folder / f"{json.loads(about['about'])['epoch']:06}.safetensors").open("wb") as out:
                out.write(content[: len(content) // 2])
                out.flush()
                os.fsync(out.fileno())
            die()
        return content

    def killed_in_rename(self, target):
        if self.suffix == ".part" and str(target).endswith(".safetensors") and reached():
            die()
        return replace(self, target)

    def killed_with_outs(self, target):
        done = replace(self, target)
        if str(target).startswith("models/adapters") and reached():
            die()
        return done

    if point == "restart":
        aclora.methods.aclora.carry_moments = killed_in_restart
    if point == "write":
        aclora.training.checkpoints.save = killed_in_write
    if point in ("rename", "outs"):
        Path.replace = killed_in_rename if point == "rename" else killed_with_outs
    run(train.main, __doc__)


if __name__ == "__main__":
    main()

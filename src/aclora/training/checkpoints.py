"""A training's checkpoints and its history so far, in a folder that DVC does not know.

A checkpoint is whole or absent: it is written beside its place, synced and renamed. Two are kept. Whatever a training
writes here changes none of its outs.
"""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aclora.core.config import Config, MustBe
from aclora.core.files import remove_parts, write_atomically
from aclora.core.tensors import all_finite

FOLDER = Path(".cache/training")
KEPT = 2
VALUES = "values"  # a record's tensor; the rest of it is JSON


class CheckpointsConfig(Config):
    """The `checkpoints` section of params.yaml."""

    every: Annotated[int, MustBe("between 1 and 1000000 epochs")] = Field(ge=1, le=1_000_000)


class Checkpoints:
    """What is kept of one training, in `folder`: `history.jsonl`, line by line, and the two last checkpoints.

    While another process trains the same, that one has the folder, and this training keeps its own in `folder.2`.
    `machine` says what kind of machine computes; a checkpoint of another kind is left alone, because going on from it
    would not give the same bytes.
    """

    def __init__(self, folder: Path, config: CheckpointsConfig, machine: str):
        self.folder = _free(folder)
        self.every, self.machine = config.every, machine
        self.history: list[dict] = []  # records without their tensors
        self.values: list[Tensor] = []  # the tensors of those that had one
        self.state: tuple[int, dict[str, Tensor], dict] | None = None  # epoch, tensors and values to go on from
        self.failed = False

    @property
    def log(self) -> Path:
        """The history so far, one JSON object a line."""
        return self.folder / "history.jsonl"

    def add(self, record: dict) -> None:
        """Keep a record of the history; it is on disk at once, its tensor with the next checkpoint."""
        if VALUES in record:
            self.values.append(record[VALUES])
        self.history.append({k: v for k, v in record.items() if k != VALUES})
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.history[-1]) + "\n")

    def due(self, epoch: int) -> bool:
        """Is a checkpoint wanted at this epoch's end?"""
        return epoch % self.every == 0

    def save(self, epoch: int, tensors: dict[str, Tensor], values: dict) -> None:
        """Write the checkpoint of an epoch's end; where there is no room, say so and leave the older ones."""
        about = {"epoch": epoch, "machine": self.machine, "training": self.folder.name}
        about |= {"history": self.history, "values": values}
        tensors = {f"state.{k}": v.detach().cpu().contiguous() for k, v in tensors.items()}
        tensors |= {f"record.{i}": v.contiguous() for i, v in enumerate(self.values)}
        about["digest"] = _digest(tensors, about)
        try:
            content = save(tensors, {"about": json.dumps(about)})
            write_atomically(self.folder / f"{epoch:06}.safetensors", content, durable=True)
        except OSError as error:
            if not self.failed:
                print(
                    f"checkpoint of epoch {epoch} not written ({error.strerror}): free space, for instance other "
                    f"trainings' folders in {FOLDER}; training goes on, older checkpoints stand",
                    file=sys.stderr,
                )
            self.failed = True
            return
        for old in self._files()[:-KEPT]:
            old.unlink()

    def load(self, parameters: Sequence[Tensor] = ()) -> "Checkpoints":
        """Set `state`, history and log to the last whole checkpoint, or to nothing where there is none.

        A checkpoint of other parameters than these is passed over like one that is damaged.
        """
        found = sorted((f for f in self.folder.glob("*.safetensors") if f.stem.isdecimal()), reverse=True)
        self.state = next((s for file in found if (s := self._read(file, parameters))), None)
        lines = "".join(json.dumps(r) + "\n" for r in self.history)
        with contextlib.suppress(OSError):
            remove_parts(self.folder)
            write_atomically(self.log, lines.encode(), durable=True)
        return self

    def clear(self, keep: int = 0) -> None:
        """Delete the checkpoints, but for the last `keep`. The log stays."""
        for file in self._files()[: -keep or None]:
            file.unlink()

    def standing(self) -> str:
        """The end of an error's line: where the last checkpoint stands; empty without one."""
        files = self._files()
        return f"; the checkpoint of epoch {int(files[-1].stem)} stands: {files[-1]}" if files else ""

    def _files(self):
        return sorted(f for f in self.folder.glob("*.safetensors") if f.stem.isdecimal() and f.is_file())

    def _read(self, file, parameters):
        try:
            with safe_open(file, "pt") as content:
                about = json.loads((content.metadata() or {})["about"])
                tensors = {k: content.get_tensor(k).clone() for k in content.keys()}  # noqa: SIM118
            machine, digest = about["machine"], about.pop("digest")
            problem = "" if machine != self.machine else self._problem(about, digest, tensors, parameters)
        except (SafetensorError, OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            machine, problem = self.machine, f"{type(error).__name__}: {error}"
        if machine != self.machine:
            print(f"{file} is of {machine}, this is {self.machine}: it is passed over", file=sys.stderr)
            return None
        if problem:
            print(f"{file} is not a checkpoint of this training ({problem}): it is passed over", file=sys.stderr)
            return None
        self.history = about["history"]
        self.values = [tensors[f"record.{i}"] for i in range(sum(k.startswith("record.") for k in tensors))]
        state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
        return about["epoch"], state, about["values"]

    def _problem(self, about, digest, tensors, parameters):
        """Why a file that could be read is none to go on from; empty where it is."""
        if about["training"] != self.folder.name:
            return "it is of another"
        if digest != _digest(tensors, about):
            return "its content has changed since it was written"
        if bad := next((k for k, v in tensors.items() if v.is_floating_point() and not all_finite(v)), None):
            return f"{bad} has a value that is not a finite number"
        if not parameters:
            return ""
        shapes = {f"state.parameter.{i}": p.shape for i, p in enumerate(parameters)}
        found = {k: v.shape for k, v in tensors.items() if k.startswith("state.parameter.")}
        return "" if found == shapes else "its parameters have other names or shapes"


def _digest(tensors, about):
    """64 hex digits that stand for a checkpoint's tensors and values."""
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, values in sorted(tensors.items()):
        sha.update(f"{name} {values.dtype} {list(values.shape)} ".encode())
        sha.update(values.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def forget(training: Path) -> None:
    """Delete the checkpoints of a training that is over and whose outs are recorded; `training` is its folder."""
    for folder in [training, *training.parent.glob(f"{training.name}.*")]:
        for file in folder.glob("*.safetensors"):
            with contextlib.suppress(OSError):  # they cost room alone
                file.unlink()


def room_note(folder: Path, parameters: Sequence[Tensor]) -> str:
    """A line about a disk that has no room for this training's checkpoints; empty where it has.

    A checkpoint holds each parameter and Adam's two moments of it. Beside those that are kept there is one that is
    being written.
    """
    needed = sum(p.numel() * p.element_size() for p in parameters) * 3 * (KEPT + 1)
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return ""
    return (
        f"{folder}: its disk has {free / 1e6:.0f} MB free, checkpoints need {needed / 1e6:.0f} MB: free some, or an "
        "interrupted training begins again"
    )


def _free(folder: Path) -> Path:
    """The first of folder, folder.2, folder.3 … that no other process has; it is this process's until its end."""
    for number in itertools.count(1):
        chosen = folder if number == 1 else folder.with_name(f"{folder.name}.{number}")
        chosen.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(chosen / "lock", os.O_WRONLY | os.O_CREAT)  # never closed: that would unlock it
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # another one is a full disk, or a file system without locks
            if error.errno in (errno.EACCES, errno.EAGAIN) and os.access(chosen, os.W_OK):
                continue
        if number > 1:
            print(f"another process trains the same: this one's checkpoints are in {chosen}", file=sys.stderr)
        return chosen
    raise AssertionError("the numbers do not end")


def machine(device: torch.device) -> str:
    """What must be equal for a training to go on as it would have: torch and the kind of device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return f"torch {torch.__version__}, {device.type}, {name}"

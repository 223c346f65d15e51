"""Ways in which a network's folder is broken: each takes a file or folder and spoils it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ALARM = "ran"  # the file that a pickled file makes when its code is run


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def text(file: Path) -> None:
    file.write_text("hello")


def pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def a_list(file: Path) -> None:
    file.write_text("[]")


def pickled(file: Path) -> None:
    """The same weights as torch saves them."""
    name = "pytorch_model.bin" if file.name == "model.safetensors" else "diffusion_pytorch_model.bin"
    torch.save(load_file(file), file.with_name(name))
    file.unlink()


def hostile(file: Path) -> None:
    """A pickled file that runs code when it is read without care."""

    class Code:
        def __reduce__(self):
            return os.system, (f"touch {file.with_name(ALARM)}",)

    torch.save({"weight": Code()}, file.with_name("pytorch_model.bin"))
    file.unlink()


def weights(change: Callable[[dict, str], None]) -> Callable[[Path], None]:
    """Change one of a file's tensors, given all of them and its name."""

    def spoil(file):
        tensors = {k: v.clone() for k, v in load_file(file).items()}
        change(tensors, next(k for k in sorted(tensors) if k.endswith(".weight")))
        save_file(tensors, file, {"format": "pt"})

    return spoil


def config(**changes) -> Callable[[Path], None]:
    """Set keys of a JSON file; None removes one."""

    def spoil(file):
        values = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))

    return spoil


def put(value: float) -> Callable[[Path], None]:
    """One weight becomes this number."""
    return weights(lambda tensors, name: tensors[name].view(-1)[:1].fill_(value))


lacking = weights(lambda tensors, name: tensors.pop(name))
reshaped = weights(lambda tensors, name: tensors.update({name: torch.zeros(3, 5)}))

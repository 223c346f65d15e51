"""Files that are whole or absent, and their digests."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def sha256(file: Path) -> str:
    """Hex digest of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextlib.contextmanager
def writing(*outs: str | Path) -> Iterator[list[Path]]:
    """Yield a place beside each out to write to; all are moved into place at the end, none after an error.

    A place does not exist yet: make a folder or a file of it.
    """
    outs = [Path(out) for out in outs]
    places = [out.with_name(f".{out.name}.{os.getpid()}.part") for out in outs]
    try:
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
        yield places
        for out in outs:
            _remove(out)
        for place, out in zip(places, outs, strict=True):
            place.replace(out)
    finally:
        for place in places:
            _remove(place)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

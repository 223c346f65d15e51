"""Frozen networks that look at pictures: picture → features. A file per kind; here: how each is found, named, asked.

An encoder is named by a folder, or by a hub name with the commit that is meant (`owner/name@commit`). Figures made
by different ones do not compare, so every figure carries its encoder's label: the name, and a digest of its files.
"""

import hashlib
import importlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from aclora.core.files import sha256, write_whole
from aclora.core.hub import locate, quieten
from aclora.core.tensors import finite

OWN_FILES = {".safetensors", ".pth", ".pt", ".bin", ".json", ".txt"}  # weights, configs, vocabularies
COMPUTES = {
    "fid": "FID, KID and NFID",
    "clip": "CMMD, CLIP score and copies",
    "dino": "DINO score and drift",
    "image_reward": "ImageReward",
    "judge": "what the judge recognises",
}
NETWORKS = {"judge": "Judge", "inception": "Inception", "clip": "Clip", "dino": "Dino", "image_reward": "Reward"}


class Encoder:
    """A network that is loaded when a picture comes that it has not seen; what it saw is kept by content in `cache`.

    `kind` is a knob of the section `evaluate` (a key of COMPUTES), `name` its value. `device` is where it runs,
    `batch_size` how many pictures at once: that bounds memory and changes nothing else. Raises `InputError` if the
    network cannot be had.
    """

    def __init__(self, kind: str, name: str, cache: Path, batch_size: int = 32, device: str = "cpu"):
        self.kind, self.name, self.cache, self.batch_size, self.device = kind, name, cache, batch_size, device
        others = ", ".join(v for k, v in COMPUTES.items() if k != kind)
        aid = f"or set it to null: without {COMPUTES[kind]}, still computed are {others}"
        self.place = locate(f"evaluate.{kind}", name, aid)
        self.digest = digest(self.place)
        self.label = f"{name} {self.digest}"

    @cached_property
    def network(self):
        """The network itself, in float32 on `device`."""
        quieten()
        kind = self.kind
        if kind == "fid":
            kind = "judge" if (self.place / "config.json").is_file() else "inception"
        module = importlib.import_module(f"aclora.encoders.{kind}" if kind != "judge" else "miniature.judging.encoder")
        return getattr(module, NETWORKS[kind]).from_pretrained(self.place).to(self.device)

    def look(self, pictures: Sequence[Image.Image], names: list[str]) -> dict[str, Tensor]:
        """`features` (n, d), and whatever else the network says of each picture. A feature that is no finite number
        is an `InputError` that names the picture."""
        return self._kept("look", names, pictures)

    def read(self, prompts: list[str]) -> Tensor:
        """CLIP: the prompts' embeddings (n, d)."""
        return self._kept("read", prompts, prompts)["features"]

    def score(self, pictures: Sequence[Image.Image], prompts: list[str], names: list[str]) -> Tensor:
        """ImageReward: the reward of each picture for its prompt (n,)."""
        return self._kept("score", names, pictures, prompts)["features"]

    def _kept(self, method, names, *args):
        file = self.cache / f"{self._key(method, args)}.safetensors"
        try:
            return load_file(file)
        except (OSError, SafetensorError):  # not yet there, or cut short
            said = getattr(self.network, method)(*args, batch=self.batch_size)
        said = {k: v.cpu().contiguous() for k, v in (said if isinstance(said, dict) else {"features": said}).items()}
        for values in said.values():
            finite(values, names)
        write_whole(file, save(said))
        return said

    def _key(self, method, args):
        sha = hashlib.sha256(f"{self.digest} {code()} {method} {self.device}".encode())
        for item in (item for items in args for item in items):
            one = item.encode() if isinstance(item, str) else content(item)
            sha.update(len(one).to_bytes(8, "little") + one)
        return sha.hexdigest()[:32]


def digest(place: Path) -> str:
    """Twelve hex digits that stand for a network: its weights, configs and vocabularies."""
    sha = hashlib.sha256()
    files = [place] if place.is_file() else sorted(f for f in place.rglob("*") if f.suffix in OWN_FILES)
    for file in files:
        name = "" if file == place else file.relative_to(place).as_posix()
        sha.update(f"{name} {sha256(file)}\n".encode())
    return sha.hexdigest()[:12]


def content(picture: Image.Image) -> bytes:
    """What a picture shows, as bytes: its mode, size and pixels."""
    return hashlib.sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes()).digest()


def digest_of(pictures: Sequence[Image.Image]) -> str:
    """Twelve hex digits that stand for a set of pictures in their order."""
    return hashlib.sha256(b"".join(map(content, pictures))).hexdigest()[:12]


def code() -> str:
    """Stands for the code in this folder: features that another version made are not taken for this one's."""
    return hashlib.sha256(b"".join(f.read_bytes() for f in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()[:12]

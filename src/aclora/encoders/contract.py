"""The contract of an encoder: a frozen network that looks at pictures.

A knob of `evaluate` names an encoder's folder, or a hub name with the commit that is meant (`owner/name@commit`). The
file of this folder with the knob's name loads it; its `ENCODER` is the class. Such a class offers
`from_pretrained(folder)`, and of the following what it can, each given a `batch` size and returning float32 on the CPU:

    look(pictures)            features (n, d), or a dictionary of tensors (n, …), "features" among them
    read(prompts)             features of texts (n, d)
    score(pictures, prompts)  one number for each pair (n,)

A class of one's own stands in the `ENCODERS` of a module that `evaluate.figures` names. It also says for which knobs it
stands (`knobs`), which folders are its own (`fits(folder)`), and may name its classes (`labels(folder)`).

Figures made by different networks do not compare, so every figure carries its encoder's label: the name, and a digest
of its files.
"""

import hashlib
import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from aclora.core.discovery import load
from aclora.core.files import sha256, write_atomically
from aclora.core.hub import loading, locate, quieten
from aclora.core.network_files import check_network
from aclora.core.tensors import finite, finite_weights

OWN_FILES = {".safetensors", ".pth", ".pt", ".bin", ".json", ".txt"}  # weights, configs, vocabularies


class Encoder:
    """A network that is loaded when a picture comes that it has not seen; its outputs are kept by content in `cache`.

    `knob` is a knob of the section `evaluate`, `name` its value. `classes` are network classes of one's own; `remedy`
    ends the error where the network cannot be had. `device` is where it runs, `batch_size` how many pictures at once:
    that bounds memory and changes nothing else. Raises `InputError` if the network cannot be found.
    """

    def __init__(
        self,
        knob: str,
        name: str,
        cache: Path,
        batch_size: int = 32,
        device: str = "cpu",
        classes: Sequence[type] = (),
        remedy: str = "put it there, or set the knob to null",
    ):
        self.knob, self.name, self.cache, self.batch_size, self.device = knob, name, cache, batch_size, device
        self.place = locate(f"evaluate.{knob}", name, remedy)
        self.own_class = next((c for c in classes if knob in c.knobs and c.fits(self.place)), None)
        self.digest = digest(self.place)
        self.label = f"{name} {self.digest}"

    @property
    def labels(self) -> dict[str, list[str]]:
        """The names of the classes that a classifier tells apart, by output; empty for other networks."""
        labels = getattr(self.own_class, "labels", None)
        return labels(self.place) if labels else {}

    @cached_property
    def network(self):
        """The network itself, in float32 on `device`."""
        quieten()
        knob = f"evaluate.{self.knob}"
        network_class = self.own_class or load("encoders", self.knob, knob, "ENCODER")
        with loading(knob, self.place):
            if self.place.is_dir():
                check_network(self.place)
            network = network_class.from_pretrained(self.place)
            finite_weights(network)
            return network.to(self.device)

    def outputs(
        self, asks: set[str], pictures: Sequence[Image.Image], names: list[str], prompts: list[str] | None = None
    ) -> dict[str, Tensor]:
        """Everything that is asked of it, by output: what `look` gives, "prompts" (n, d) of `read`, "scores" (n,) of
        `score`; the last two only where there are prompts. `names` are for errors."""
        found = self.look(pictures, names) if "look" in asks else {}
        if prompts and "read" in asks:
            found["prompts"] = self.read(prompts)
        if prompts and "score" in asks:
            found["scores"] = self.score(pictures, prompts, names)
        return found

    def look(self, pictures: Sequence[Image.Image], names: list[str]) -> dict[str, Tensor]:
        """`features` (n, d), and whatever else the network says of each picture. A feature that is not a finite number
        is an `InputError` that names the picture."""
        return self._kept("look", names, pictures)

    def read(self, prompts: list[str]) -> Tensor:
        """The prompts' embeddings (n, d)."""
        return self._kept("read", prompts, prompts)["features"]

    def score(self, pictures: Sequence[Image.Image], prompts: list[str], names: list[str]) -> Tensor:
        """One number for each picture and its prompt (n,)."""
        return self._kept("score", names, pictures, prompts)["features"]

    def _kept(self, method, names, *args):
        file = self.cache / f"{self._key(method, args)}.safetensors"
        try:
            return load_file(file)
        except (OSError, SafetensorError):  # not yet there, or cut short
            found = getattr(self.network, method)(*args, batch=self.batch_size)
        found = found if isinstance(found, dict) else {"features": found}
        found = {k: v.cpu().contiguous() for k, v in found.items()}
        for values in found.values():
            finite(values, names)
        write_atomically(file, save(found))
        return found

    def _key(self, method, args):
        sha = hashlib.sha256(f"{self.digest} {self._code} {method} {self.device}".encode())
        for item in (item for items in args for item in items):
            one = item.encode() if isinstance(item, str) else content(item)
            sha.update(len(one).to_bytes(8, "little") + one)
        return sha.hexdigest()[:32]

    @cached_property
    def _code(self) -> str:
        """Stands for the code of the network: features that another version made are not taken for this one's."""
        own = inspect.getfile(self.own_class) if self.own_class else Path(__file__).with_name(f"{self.knob}.py")
        return hashlib.sha256(Path(__file__).read_bytes() + Path(own).read_bytes()).hexdigest()[:12]


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

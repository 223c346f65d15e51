"""More bad inputs, drawn from a seed. Whether an input is bad is decided without the code that is tried."""

import copy
import io
import json
import math
import random
import string
from collections.abc import Iterator
from pathlib import Path

import jsonschema
from PIL import Image

from tests.conftest import ROOT
from tests.trials.case import Case
from tests.trials.cases.values import knobs
from tests.trials.tree import PICTURES, STYLE, YAML, Tree

KIND = "drawn by the fuzzer"
KNOBS, FILES = 130, 70
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    8,
    12,
    63,
    64,
    65,
    100,
    10**6,
    2**31,
    2**63,
    2**64,
    10**30,
    0.0,
    0.5,
    1.0,
    1.5,
    -0.5,
    1e-9,
    1e-300,
    1e300,
)
ODD = (
    math.inf,
    -math.inf,
    math.nan,
    True,
    False,
    None,
    [],
    {},
    [1],
    ["x"],
    {"a": 1},
    [[]],
    "1e-3",
    "0.5",
    "3",
    "0x10",
    "1_000",
)
TEXTS = (
    "",
    " ",
    "x",
    "none",
    "null",
    "no",
    "true",
    "../..",
    "/",
    ".",
    "~",
    "a/b",
    "a/b@c",
    "@",
    "a\0b",
    "a\nb",
    "é",
    "x" * 1000,
    "${key}",
    "`id`",
    "%s",
    "lora",
    "data",
)
ENDINGS = ("gif", "tif", "TXT", "PNG", "jpg", "webp", "heic", "caption", "bak", "")
SHOWN = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def cases(seed: int = 0) -> Iterator[Case]:
    rng = random.Random(seed)
    found = list(knobs(json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8"))))
    for number in range(KNOBS):
        yield knob_case(number, rng, [name for name, _ in found])
    for number in range(FILES):
        yield file_case(number, rng.randrange(2**32))


def knob_case(number: int, rng: random.Random, names: list[str]) -> Case:
    """A knob with a value of any kind, or with another knob's."""
    knob, other = rng.choice(names), rng.choice(names)
    value = rng.choice([rng.choice(NUMBERS), rng.choice(ODD), rng.choice(TEXTS), Other(other), letters(rng)])
    shown = f"the value of {other}" if isinstance(value, Other) else repr(value)[:40]

    def changed(tree: Tree) -> dict:
        values = YAML.load(tree.read("params.yaml"))
        place = values
        for part in knob.split(".")[:-1]:
            place = place[part]
        place[knob.rpartition(".")[2]] = copy.deepcopy(at(values, other) if isinstance(value, Other) else value)
        return values

    def spoil(tree: Tree):
        out = io.BytesIO()
        YAML.dump(changed(tree), out)
        tree.write("params.yaml", out.getvalue())

    def valid(tree: Tree, output: str) -> str | None:
        if "error:" in output or valid_by_schema(YAML.load(tree.read("params.yaml")), knob):
            return None
        return f"silent: {knob} = {shown} is not valid by params.schema.json"

    section, _, name = knob.rpartition(".")
    return Case(f"{number}: {knob} = {shown}", spoil, rf"{name}|{section.partition('.')[0]}", "sound", also=valid)


class Other(str):
    """Another knob, whose value is taken."""


def letters(rng: random.Random) -> str:
    return "".join(rng.choice(string.printable) for _ in range(rng.randrange(1, 12)))


def at(values: dict, knob: str):
    for part in knob.split("."):
        values = values[part]
    return values


def valid_by_schema(values: dict, knob: str) -> bool:
    """By an independent reader of params.schema.json; numbers are finite, and may stand in quotes."""
    validator = jsonschema.Draft202012Validator(json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8")))
    value = at(values, knob)
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if validator.is_valid(values):
        return True
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return False
    quoted = copy.deepcopy(values)
    at(quoted, knob.rpartition(".")[0])[knob.rpartition(".")[2]] = number
    return math.isfinite(number) and validator.is_valid(quoted)


def file_case(number: int, seed: int) -> Case:
    """One file of the style's folder cut, changed, renamed, exchanged or doubled."""
    done: list[str] = []

    def spoil(tree: Tree):
        rng = random.Random(seed)
        files = sorted(file.name for file in (tree.folder / PICTURES).iterdir())
        name, other = rng.sample(files, 2)
        place, content = f"{PICTURES}/{name}", tree.read(f"{PICTURES}/{name}")
        how = rng.choice(("cut", "flip", "rename", "ending", "exchange", "double", "remove", "insert"))
        done[:] = [how, name]
        if how == "cut":
            tree.write(place, content[: rng.randrange(len(content))])
        elif how == "flip":
            tree.write(place, flipped(content, rng))
        elif how == "insert":
            cut = rng.randrange(len(content))
            tree.write(place, content[:cut] + rng.randbytes(rng.randrange(1, 200)) + content[cut:])
        elif how == "remove":
            tree.remove(place)
        elif how == "exchange":
            tree.write(place, tree.read(f"{PICTURES}/{other}"))
        else:
            stem, dot, end = name.rpartition(".")
            new = {
                "rename": f"{letters(rng).replace('/', '_').replace(chr(0), '')}{dot}{end}",
                "ending": f"{stem}.{rng.choice(ENDINGS)}",
                "double": f"{stem} copy{dot}{end}",
            }[how]
            (tree.copy if how == "double" else tree.rename)(place, f"{PICTURES}/{new}")

    def fine(tree: Tree, output: str) -> str | None:
        if "error:" in output:
            return None
        wrong = [
            name for name in unusable(tree.folder / PICTURES) if name not in output and repr(name)[1:-1] not in output
        ]
        return f"silent: {done[0]} of {done[1]}; nothing is said of {wrong[0]!r}" if wrong else None

    return Case(f"{KNOBS + number}: a file of {STYLE}", spoil, r"watercolor|caption", "sound", also=fine)


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 30)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def unusable(folder: Path) -> list[str]:
    """Files of a style's folder that are neither a picture that opens nor the caption of one."""
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    stems = {file.stem for file in files if file.suffix.lower() in SHOWN}
    return [file.name for file in files if not (opens(file) if file.suffix.lower() in SHOWN else belongs(file, stems))]


def opens(file: Path) -> bool:
    try:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            image.load()
        return True
    except Exception:
        return False


def belongs(file: Path, stems: set[str]) -> bool:
    """Is a file the caption of a picture, in UTF-8, with a letter in it?"""
    if file.suffix.lower() != ".txt" or file.stem not in stems:
        return False
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return any(letter.isalpha() for letter in text) and not any(
        ord(letter) < 32 and letter not in "\n\r\t" for letter in text
    )

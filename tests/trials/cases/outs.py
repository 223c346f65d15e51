"""Outs of earlier stages that were damaged: the stage or command that reads them says so and writes nothing."""

import json
from collections.abc import Iterator
from io import BytesIO

import torch
from PIL import Image
from safetensors.torch import load, save

from tests.trials.case import Case
from tests.trials.cases.pictures import picture
from tests.trials.tree import ADAPTER, GENERATED, METRICS, STYLE

KIND = "outs of earlier stages"
CAPTIONS = f"data/captions/{STYLE}.jsonl"
WEIGHTS = f"{ADAPTER}/pytorch_lora_weights.safetensors"
# A file of an earlier stage, and who reads it.
READERS = (
    (CAPTIONS, "train"),
    (f"{ADAPTER}/adapter.json", "audit"),
    (f"{ADAPTER}/adapter.json", "generate"),
    (f"{ADAPTER}/history.jsonl", "audit"),
    (f"{GENERATED}/prompts.jsonl", "evaluate"),
    (f"{GENERATED}/without_trigger/prompts.jsonl", "evaluate"),
)
REPORTS = ("scores.json", "evaluation.json", "per_image.csv", "per_reference.csv")
COMMANDS = (("aclora", "scores"), ("aclora", "compare", ".", "."))


def cases() -> Iterator[Case]:
    yield from texts()
    yield from tensors()
    yield from pictures()
    yield from reports()
    yield from kept_beside()


def stage(name: str) -> tuple[str, str]:
    return (f"stages.{name}", STYLE)


def texts() -> Iterator[Case]:
    for file, reader in READERS:
        short, command = file.removeprefix("models/").removeprefix("data/"), stage(reader)
        says = file.rsplit("/", 1)[1].replace(".", r"\.") + "|" + file.rsplit("/", 1)[0]
        yield Case(f"{reader}: {short} is missing", lambda tree, file=file: tree.remove(file), says, command=command)
        yield Case(
            f"{reader}: {short} is cut",
            lambda tree, file=file: tree.write(file, tree.read(file)[:-9]),
            says,
            command=command,
        )
        for name, content in (
            ("empty", b""),
            ("binary", b"\xff\xfe\0"),
            ("a number", b"7\n"),
            ("null", b"null\n"),
            ("an empty object", b"{}\n"),
        ):
            yield Case(
                f"{reader}: {short} is {name}",
                lambda tree, file=file, content=content: tree.write(file, content),
                says,
                command=command,
            )
    rows = lambda tree, file: [json.loads(line) for line in tree.read(file).decode().splitlines()]  # noqa: E731

    def changed(file, change):
        def spoil(tree):
            found = rows(tree, file)
            change(found)
            tree.write(file, "".join(json.dumps(row) + "\n" for row in found))

        return spoil

    for name, change in (
        ("a picture that is gone", lambda r: r[0].update(file="99.png")),
        ("a picture outside", lambda r: r[0].update(file="../../../etc/passwd")),
        ("another digest", lambda r: r[0].update(sha256="0" * 64)),
        ("a number for a text", lambda r: r[0].update(text=7)),
        ("a line less", lambda r: r.pop()),
        ("a line twice", lambda r: r.append(dict(r[0]))),
    ):
        answer = "sound" if "line" in name else "error"
        yield Case(
            f"train: the captions name {name}",
            changed(CAPTIONS, change),
            r"captions|\d\d\.png|passwd",
            answer,
            stage("train"),
        )
    prompts = f"{GENERATED}/prompts.jsonl"
    for name, change in (
        ("a picture that is gone", lambda r: r[0].update(file="9999.png")),
        ("a number for a file", lambda r: r[0].update(file=7)),
        ("no prompt", lambda r: r[0].pop("prompt")),
        ("a folder above", lambda r: r[0].update(file="../../x.png")),
    ):
        yield Case(
            f"evaluate: the prompts name {name}",
            changed(prompts, change),
            r"prompts\.jsonl|generated",
            command=stage("evaluate"),
        )
    about = f"{ADAPTER}/adapter.json"
    for name, reader, text in (
        ("no layers", "audit", '{"method": "aclora"}'),
        ("layers of no network", "generate", '{"method": "aclora", "layers": ["x"], "size": 64, "pictures": 12}'),
        ("a size in words", "generate", '{"method": "aclora", "layers": ["x"], "size": "many", "pictures": 12}'),
    ):
        answer = "sound" if "of no" in name else "error"
        yield Case(
            f"{reader}: adapter.json with {name}",
            lambda tree, text=text: tree.write(about, text),
            r"adapter\.json|adapters",
            answer,
            stage(reader),
        )


def tensors() -> Iterator[Case]:
    for reader in ("audit", "generate"):
        yield Case(
            f"{reader}: the adapter is cut", lambda tree: tree.cut(WEIGHTS), "pytorch_lora", command=stage(reader)
        )
        yield Case(
            f"{reader}: the adapter is empty",
            lambda tree: tree.write(WEIGHTS, b""),
            "pytorch_lora",
            command=stage(reader),
        )
        yield Case(
            f"{reader}: the adapter is missing",
            lambda tree: tree.remove(WEIGHTS),
            "pytorch_lora|adapter",
            command=stage(reader),
        )
        for value in ("nan", "inf"):
            yield Case(
                f"{reader}: the adapter is full of {value}",
                lambda tree, value=value: every(tree, float(value)),
                "pytorch_lora|finite",
                command=stage(reader),
            )
        yield Case(
            f"{reader}: the adapter has another model's layers", foreign, "pytorch_lora|layer", command=stage(reader)
        )
    yield Case(
        "audit: restarts.safetensors is cut",
        lambda tree: tree.cut(f"{ADAPTER}/restarts.safetensors"),
        r"restarts",
        command=stage("audit"),
    )
    yield Case("generate: signal.safetensors is cut", signal, "signal", command=stage("generate"))


def every(tree, value: float) -> None:
    tree.write(WEIGHTS, save({key: torch.full_like(t, value) for key, t in load(tree.read(WEIGHTS)).items()}))


def foreign(tree) -> None:
    tree.write(
        WEIGHTS, save({key.replace("down_blocks.", "down_blocks.7"): t for key, t in load(tree.read(WEIGHTS)).items()})
    )


def signal(tree) -> None:
    tree.knob("generate.adapter", "signal")
    tree.cut(f"{ADAPTER}/signal.safetensors")


def pictures() -> Iterator[Case]:
    place = f"{GENERATED}/adapter/0002.png"
    flat = BytesIO()
    Image.new("RGB", (64, 64), "white").save(flat, "PNG")
    for name, content in (
        ("empty", b""),
        ("text", b"x"),
        ("cut", picture()[:80]),
        ("of another size", picture(size=(32, 32))),
    ):
        yield Case(
            f"evaluate: a generated picture is {name}",
            lambda tree, content=content: tree.write(place, content),
            r"0002\.png",
            command=stage("evaluate"),
        )
    yield Case(
        "evaluate: a generated picture is missing",
        lambda tree: tree.remove(place),
        r"0002\.png",
        command=stage("evaluate"),
    )
    yield Case(
        "evaluate: a generated picture is a folder",
        lambda tree: tree.path(place).mkdir(),
        r"0002\.png",
        command=stage("evaluate"),
    )
    yield Case(
        "evaluate: nothing is generated", lambda tree: tree.remove(GENERATED), "generated", command=stage("evaluate")
    )
    yield Case(
        "evaluate: base is missing",
        lambda tree: tree.remove(f"{GENERATED}/base"),
        "generated",
        command=stage("evaluate"),
    )


def reports() -> Iterator[Case]:
    for name in REPORTS:
        for command in COMMANDS:
            if command[1] == "scores" and name.startswith("per_"):
                continue
            for what, content in (
                ("cut", None),
                ("empty", b""),
                ("a list", b"[]\n"),
                ("binary", b"\xff\xfe\0\n"),
                ("null", b"null\n"),
            ):
                spoil = (
                    (lambda tree, name=name: tree.cut(f"{METRICS}/{name}"))
                    if content is None
                    else (lambda tree, name=name, content=content: tree.write(f"{METRICS}/{name}", content))
                )
                # a table that a comparison need not read
                answer = "sound" if name == "per_reference.csv" else "error"
                yield Case(f"{command[1]}: {name} is {what}", spoil, name.split(".")[0], answer, command)
            yield Case(
                f"{command[1]}: {name} is missing",
                lambda tree, name=name: tree.remove(f"{METRICS}/{name}"),
                name.split(".")[0] + "|evaluated|scores",
                "said" if name.startswith("per_r") is False else "sound",
                command,
            )
    for what, text in (("NaN", "NaN"), ("a text", '"many"'), ("null", "null"), ("a list", "[1]")):
        for command in COMMANDS:
            yield Case(
                f"{command[1]}: a score of {what}",
                lambda tree, text=text: score(tree, text),
                "scores|many|kid|fid",
                "sound" if what == "null" else "error",
                command,
            )


def score(tree, text: str) -> None:
    found = json.loads(tree.read(f"{METRICS}/scores.json"))
    key = next(iter(found))
    tree.write(f"{METRICS}/scores.json", json.dumps(found | {key: "HERE"}).replace('"HERE"', text))


def kept_beside() -> Iterator[Case]:
    """What is kept beside the outs and can be made again: damage costs time alone."""

    def encoded(content: bytes | None):
        def spoil(tree):
            tree.remove(f"{METRICS}/scores.json")
            for file in [f for f in (tree.folder / ".cache").rglob("*") if f.is_file()]:
                name = str(file.relative_to(tree.folder))
                tree.write(name, tree.read(name)[: len(tree.read(name)) // 2] if content is None else content)

        return spoil

    for name, content in (("cut", None), ("empty", b""), ("text", b"x")):
        yield Case(f"evaluate: what encoders made is kept {name}", encoded(content), "", "fine", stage("evaluate"))

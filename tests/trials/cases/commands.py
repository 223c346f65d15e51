"""Words on the command line, and projects whose git or DVC is damaged."""

import os
from collections.abc import Iterator

from tests.trials.case import Case
from tests.trials.cases.adapters import GOOD
from tests.trials.tree import LOCK, STYLE, TOUCHED

KIND = "command line, git and DVC"
WORDS = (
    "",
    " ",
    "nothing",
    "-",
    "--",
    "a\nb",
    "\x1b[31m",
    "$(touch x)",
    f"; touch {TOUCHED}",
    "x" * 5000,
    "../..",
    "/dev/null",
    "HEAD~999",
    "-rf",
    "refs/exps/x",
    ":/x",
    "a..b",
)
STAGES = ("caption", "train", "audit", "generate", "evaluate")


def cases() -> Iterator[Case]:
    yield from words()
    yield from numbers()
    yield from git()
    yield from dvc()


def asked(*words: str, says: str = "", answer="error", spoil=lambda tree: None, name: str = "") -> Case:
    shown = " ".join(repr(word[:30]) if not word.replace("-", "").isalnum() else word for word in words)
    return Case(name or f"aclora {shown}", spoil, says, answer, ("aclora", *words))


def words() -> Iterator[Case]:
    yield asked("nothing")
    yield asked("chekc")
    yield asked("check", "nothing", answer="sound")
    yield asked("--nothing")
    for word in WORDS:
        yield asked("compare", "--", word, ".")
        yield asked("compare", ".", ".", "--style", word)
        yield asked("inspect", "--", word)
        yield asked("reproduce", "--", word)
        if word != "HEAD~999":
            yield asked("publish", "--", word)
    for word in WORDS[2:10]:
        yield asked("plots", "--", word)
    for command in ("compare", "inspect", "export", "resize", "reproduce"):
        yield asked(command)
    yield asked("compare", ".")
    yield asked("compare", ".", "nothing", says="nothing")
    yield asked("compare", "data", ".", says="data")
    yield asked("compare", "params.yaml", ".", says="params")
    yield asked("plots", "--out", "params.yaml", says="params|out")
    yield asked("plots", "--out", "/proc/nothing", says="proc|out")
    yield asked("plots", "--out", "", says="out", answer="sound")
    for stage in STAGES:
        for name in ("nothing", "../x", "-x", "", "watercolor\n"):
            command = (f"stages.{stage}", name)
            yield Case(f"stages.{stage} {name!r}", lambda tree: None, "" if name == "-x" else "style", command=command)
        yield Case(f"stages.{stage} without a style", lambda tree: None, "", command=(f"stages.{stage}",))


def numbers() -> Iterator[Case]:
    export = ("export", GOOD, "--to", "diffusers", "--out", "made.safetensors")
    resize = ("resize", GOOD, "--out", "made.safetensors")
    for value in ("0", "-1", "1.5", "many", "", "nan", "inf"):
        yield asked(*export, "--rank", value, says="rank")
        yield asked(*resize, "--rank", value, says="rank")
    yield asked(*export, "--rank", "9" * 30, says="rank", answer="sound")
    for value in ("0", "-1", "1.1", "nan", "inf", "many", ""):
        yield asked(*export, "--energy", value, says="energy")
        yield asked(*resize, "--sv-fro", value, says="sv.fro")
    yield asked(*export, "--rank", "2", "--energy", "0.5", says="energy")
    yield asked(*export, "--per-layer", says="per.layer")
    yield asked(*resize, says="rank")
    yield asked("export", GOOD, "--to", "onnx", "--out", "x.safetensors", says="onnx")
    yield asked("export", GOOD, "--to", "kohya", "--out", "x.safetensors", says="base", answer="said")
    yield asked("export", GOOD, "--to", "kohya", "--base", "flux", "--out", "x.safetensors", says="flux")


READERS = (("check",), ("scores",), ("compare", "HEAD", "."), ("publish",), ("reproduce", "abcdef1"), ("plots", "HEAD"))


def git() -> Iterator[Case]:
    damages = {
        "no git repository": lambda tree: tree.remove(".git"),
        "git points nowhere": lambda tree: tree.write(".git", "gitdir: /nowhere\n"),
        "HEAD is damaged": lambda tree: tree.write(".git/HEAD", "nonsense\n"),
        "HEAD is a branch without a commit": lambda tree: tree.write(".git/HEAD", "ref: refs/heads/none\n"),
        "the index is cut": lambda tree: tree.cut(".git/index"),
        "git's settings are damaged": lambda tree: tree.write(".git/config", "[core\n"),
        "the objects are gone": lambda tree: tree.remove(".git/objects"),
    }
    for name, spoil in damages.items():
        for command in READERS:
            yield asked(*command, says="", answer="sound", spoil=spoil, name=f"{name}: aclora {command[0]}")
    yield asked(
        "compare", "HEAD", ".", says="", answer="sound", spoil=detached, name="HEAD is detached: aclora compare"
    )
    yield asked("publish", says="", answer="sound", spoil=detached, name="HEAD is detached: aclora publish")


def detached(tree) -> None:
    head = tree.read(".git/HEAD").decode().split()[1]
    packed = next(
        (line.split()[0] for line in tree.read(".git/packed-refs").decode().splitlines() if line.endswith(head)), None
    )
    tree.write(".git/HEAD", packed or tree.read(f".git/{head}"))


def dvc() -> Iterator[Case]:
    conflict = "<<<<<<< HEAD\nschema: '2.0'\n=======\nschema: '3.0'\n>>>>>>> theirs\n"
    damages = {
        "dvc.lock is cut": lambda tree: tree.write("dvc.lock", tree.read("dvc.lock")[:-400] + b"  - path: ["),
        "dvc.lock is empty": lambda tree: tree.write("dvc.lock", ""),
        "dvc.lock is a list": lambda tree: tree.write("dvc.lock", "- a\n"),
        "dvc.lock has a merge conflict": lambda tree: tree.write("dvc.lock", conflict),
        "dvc.lock is missing": lambda tree: tree.remove("dvc.lock"),
        "dvc.yaml is missing": lambda tree: tree.remove("dvc.yaml"),
        "dvc.yaml is damaged": lambda tree: tree.write("dvc.yaml", "stages: [\n"),
        "dvc.yaml is empty": lambda tree: tree.write("dvc.yaml", ""),
        "the folder .dvc is missing": lambda tree: tree.remove(".dvc"),
        "DVC's settings are damaged": lambda tree: tree.write(".dvc/config", "[core\nanalytics"),
        "the cache is gone": lambda tree: tree.remove(".dvc/cache"),
        "rwlock is empty": lambda tree: tree.write(LOCK, b""),
        "rwlock is cut": lambda tree: tree.write(LOCK, b'{"a": {'),
        "rwlock is a list": lambda tree: tree.write(LOCK, b"[]"),
        "rwlock names a process that is gone": lambda tree: tree.write(
            LOCK, b'{"x": {"write": {"pid": 4194000, "cmd": "dvc repro"}}}'
        ),
    }
    for name, spoil in damages.items():
        for command in READERS:
            yield asked(*command, says="", answer="sound", spoil=spoil, name=f"{name}: aclora {command[0]}")
    for content in (b"", b'{"a": {'):
        yield Case(
            f"aclora check mends a rwlock of {content.decode() or 'no'} bytes",
            lambda tree, content=content: tree.write(LOCK, content),
            "",
            "sound",
            also=mended,
        )
    part = f"models/adapters/.{STYLE}.999999999.part"
    left = lambda tree, output: "it is still there" if (tree.folder / part).exists() else None  # noqa: E731
    half = lambda tree: tree.write(f"{part}/x", "x")  # noqa: E731
    yield Case("aclora run removes a half-written adapter", half, "", "fine", ("aclora", "run"), left)
    yield Case(
        "aclora run after a lock file of no bytes",
        lambda tree: tree.write(LOCK, b""),
        "",
        "fine",
        ("aclora", "run"),
        mended,
    )
    yield Case(
        "MLflow's store is no database",
        lambda tree: tree.write("mlflow.db", "x" * 5000),
        "mlflow",
        command=("aclora", "publish"),
    )
    yield Case(
        "MLflow's store is a folder",
        lambda tree: tree.path("mlflow.db").mkdir(),
        "mlflow",
        command=("aclora", "publish"),
    )
    yield Case(
        "MLflow's store is empty",
        lambda tree: tree.write("mlflow.db", ""),
        "",
        "sound",
        command=("aclora", "reproduce", "abcdef1"),
    )


def mended(tree, output: str) -> str | None:
    """DVC can read its lock file again."""
    place = tree.folder / LOCK
    if place.exists() and os.path.getsize(place) in (0, 7):
        return f"{LOCK} stays damaged: every later dvc refuses"
    return None

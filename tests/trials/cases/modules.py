"""Modules of one's own that knobs name: figures, a method, a model family."""

from collections.abc import Iterator

from tests.trials.case import Case
from tests.trials.tree import TOUCHED

KIND = "modules of one's own"
CODE = {
    "that raises": "raise RuntimeError('not today')",
    "that raises an error of two lines": "raise ValueError('not\\ntoday')",
    "that raises with no words": "raise ValueError",
    "with a syntax error": "def broken(:\n",
    "with tabs and blanks": "if True:\n\tx = 1\n        y = 2\n",
    "that ends the process": "import sys\nsys.exit(0)",
    "that ends it with a text": "import sys\nsys.exit('bye')",
    "that needs a package": "import no_such_package_here",
    "that imports itself": "from mine import NOTHING",
    "that is not UTF-8": b"x = 'caf\xe9'",
    "with a NUL": b"x = 1\0",
    "that is empty": "",
    "that recurses for ever": "def f():\n    return f()\n\nf()",
    "that prints an escape": "raise RuntimeError('\\x1b[31mred')",
}
CONSTANTS = {"evaluate.figures": "FIGURES", "method": "METHOD", "model.family": "MODEL"}
NAMES = (
    "nowhere",
    "nowhere.at.all",
    ".mine",
    "mine.",
    "mine..mine",
    "mine/mine",
    "os",
    "os.path",
    "json",
    "tests",
    "a b",
    "-m",
    "''",
    "' '",
    "__main__",
    "builtins",
    "aclora",
    "aclora.metrics.kid",
    "aclora.core.errors",
    "stages.train",
    '"a\\0b"',
    '"a\\nb"',
    "../mine",
    "mine.py",
    f'"mine; touch {TOUCHED}"',
    "x" * 300,
    "antigravity.this",
)
VALUES = ("None", "7", "'text'", "[]", "[7]", "['kid']", "object", "object()", "lambda: 1", "int", "[None]")


def cases() -> Iterator[Case]:
    for knob, constant in CONSTANTS.items():
        for name, code in CODE.items():
            yield Case(f"{knob}: a module {name}", module(knob, code), rf"mine|no_such_package|{knob}")
        for value in VALUES:
            # no figure is a list of figures too
            answer = "sound" if (constant, value) == ("FIGURES", "[]") else "error"
            yield Case(f"{knob}: {constant} = {value}", module(knob, f"{constant} = {value}"), rf"mine|{knob}", answer)
        yield Case(
            f"{knob}: a folder without code",
            lambda tree, knob=knob: (tree.path("mine/deep").mkdir(), name_it(tree, knob, "mine.deep")),
            r"mine|" + knob,
        )
        yield Case(
            f"{knob}: a folder that is a link to itself",
            lambda tree, knob=knob: (tree.path("mine").symlink_to("mine"), name_it(tree, knob, "mine.deep")),
            knob,
        )
        for name in (name for name in NAMES if (knob, name) != ("method", "aclora")):  # that is what trains
            yield Case(f"{knob}: {name[:30]}", lambda tree, knob=knob, name=name: name_it(tree, knob, name), knob)
    for value in (
        "[7]",
        "[null]",
        "[[mine]]",
        "[{a: 1}]",
        "mine",
        "{a: 1}",
        "7",
        "[miniature.judging, miniature.judging]",
        "[true]",
        "['']",
    ):
        yield Case(
            f"evaluate.figures: {value}", lambda tree, value=value: tree.knob("evaluate.figures", value), "figures"
        )
    taken = "from aclora.metrics.kid import FIGURES"
    yield Case("evaluate.figures: a figure whose name is taken", module("evaluate.figures", taken), "figures")


def name_it(tree, knob: str, name: str) -> None:
    tree.knob(knob, f"[{name}]" if knob == "evaluate.figures" else name)


def module(knob: str, code: str | bytes):
    """A module `mine.own` with this code, and the knob that names it."""

    def spoil(tree):
        tree.write("mine/__init__.py", "")
        tree.write("mine/own.py", code)
        name_it(tree, knob, "mine.own")
        if knob == "method":
            tree.write("params.yaml", tree.read("params.yaml") + b"\nmine:\n  own:\n    rank: 4\n")
        if knob == "evaluate.figures":
            tree.knob("evaluate.judge", "null")
            tree.knob("evaluate.fid", "null")
            tree.knob("evaluate.watch_figures", "mine")

    return spoil

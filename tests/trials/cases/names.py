"""Names of styles, which become folders, stages of DVC's and words of a command line."""

import re
from collections.abc import Iterator

from tests.trials.case import Case
from tests.trials.tree import STYLE, TOUCHED

KIND = "style names"
INJECTIONS = (
    f"a; touch {TOUCHED}",
    f"$(touch {TOUCHED})",
    f"`touch {TOUCHED}`",
    f"a$(touch {TOUCHED})",
    f"a&touch {TOUCHED}",
    f"a|touch {TOUCHED}",
    f"a\ntouch {TOUCHED}",
    f"a'; touch {TOUCHED}; '",
    f'a"; touch {TOUCHED}; "',
    f"a>{TOUCHED}",
    f"${{IFS}};touch${{IFS}}{TOUCHED}",
)
OTHERS = (
    "../x",
    "..",
    ".",
    "/etc",
    "a/b",
    "a\\b",
    "-x",
    "--help",
    "-",
    "_x",
    "my style",
    " ",
    "",
    " watercolor",
    "watercolor ",
    "ä",
    "梵高",
    "e\u0301",
    "a\u202eb",
    "\u200b",
    "a\0b",
    "a\x1b[31mb",
    "a\tb",
    "x" * 65,
    "x" * 300,
    "a.b",
    "a@b",
    "a:b",
    "a,b",
    "a*",
    "a?",
    "[ab]",
    "{a,b}",
    "~",
    "~root",
    "$HOME",
    "${key}",
    "${styles}",
    "%s",
    "a#b",
    "!a",
    "CON:",
    "x.dvc",
)
BARE = (
    "1",
    "1.5",
    "true",
    "null",
    "yes: no",
    "2024-01-01",
    "[a]",
    "{a: b}",
    "0x10",
    "1e3",
    ".inf",
    "012",
    "!!str 7: 8",
)
FINE = ("con", "x" * 64, "X", "a-b_c", "7up", "no")


def cases() -> Iterator[Case]:
    for name in (*INJECTIONS, *OTHERS):
        part = max(re.findall(r"\w+", name, re.ASCII), key=len, default="")  # what no quoting changes
        yield named(
            quoted(name), f"style.*{part}", "error", f"{name if len(name) < 40 else f'{name[:30]}… {len(name)}'!r}"
        )
    for name in BARE:
        yield named(name, r"style|params\.yaml", "error", f"{name} without quotes")
    for name in FINE:
        yield named(name, rf"{name}: 12 pictures", "note", f"{name[:20]}")
    for name in (*INJECTIONS[:5], "../x", "-x", "x" * 300, "a\x1b[31mb", "a\nb", "", "watercolour"):
        shown = f"{name[:30]!r}"
        nothing = lambda tree: None  # noqa: E731
        yield Case(
            f"aclora compare --style {shown}", nothing, "", command=("aclora", "compare", ".", ".", "--style", name)
        )
        yield Case(f"aclora publish {shown}", nothing, "", command=("aclora", "publish", "--", name))
        if not name.startswith("-"):
            yield Case(f"stages.train {shown}", nothing, "style", command=("stages.train", name))


def quoted(name: str) -> str:
    """A name as a YAML text in double quotes."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    special = {"\n": "\\n", "\0": "\\0", "\x1b": "\\e", "\t": "\\t", "\u200b": "\\u200b", "\u202e": "\\u202e"}
    return '"' + "".join(special.get(letter, letter) for letter in escaped) + '"'


def named(yaml: str, says: str, answer, shown: str) -> Case:
    return Case(f"{shown}, not {STYLE}", lambda tree: tree.style_named(yaml), says, answer)

"""docs/results/trials.md: what was tried, how many, what held. No dates and no times."""

import platform
from collections.abc import Sequence
from importlib.metadata import version

import aclora
from tests.conftest import ROOT
from tests.trials.case import Result

FILE = ROOT / "docs/results/trials.md"
PACKAGES = ("torch", "diffusers", "transformers", "pillow", "safetensors", "dvc")
HEAD = """# Trials

Bad inputs and kills, each in a copy of a small finished project. `make trials` repeats them and writes this page;
another seed (`make trials SEED=1`) draws others. One case alone: `python -m tests.trials --case NAME`.

**A bad input held** if the command said in one line which knob or file is wrong, ended with an exit status that is not
0, and left every out of the finished run as it was; or, where the run is possible all the same, if a line named it.
A traceback, a hang of 20 s, two errors, a line that does not name the cause, silence, a lost out, an executed command
or a control character on the terminal is a fault. **A kill held** if no out was half-written after it, and the run
repeated once ended well with every out the same byte for byte.
"""


def write(results: Sequence[Result], seed: int) -> None:
    """Write the page."""
    inputs, kills = ([r for r in results if r.kill is wanted] for wanted in (False, True))
    lines = [HEAD, "| bad inputs | tried | held |", "|---|---:|---:|", *rows(inputs), ""]
    lines += ["| killed | kills | held |", "|---|---:|---:|", *rows(kills), ""]
    if bad := [r for r in results if r.faults]:
        lines += ["## What did not hold", "", *(f"- {r.kind} · {code(r.name)}: {code(r.faults[0])}" for r in bad), ""]
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines += [f"Seed {seed}; aclora {aclora.__version__}, Python {platform.python_version()}, {versions}."]
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{FILE.relative_to(ROOT)} is written")


def rows(results: Sequence[Result]) -> list[str]:
    found = []
    for kind in dict.fromkeys(r.kind for r in results):
        own = [r for r in results if r.kind == kind]
        found.append(f"| {kind} | {sum(r.count for r in own)} | {sum(r.count for r in own if not r.faults)} |")
    tried, held = sum(r.count for r in results), sum(r.count for r in results if not r.faults)
    return [*found, f"| **all** | **{tried}** | **{held}** |"]


def code(text: str) -> str:
    """A text that Markdown leaves alone."""
    plain = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text).replace("`", "'")
    return f"`{plain[:160]}`"

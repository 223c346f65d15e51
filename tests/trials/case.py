"""One bad input, and the verdict on what a command answered."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.trials.tree import Tree

CHECK = ("aclora", "check")
# error: exit status 1 or 2 and one line. note: status 0, and a line says it. said: one of these two. fine: status 0.
# sound: status 0 or one error line, whichever; nothing but faults that no answer excuses is looked for.
Answer = Literal["error", "note", "said", "fine", "sound"]


@dataclass(frozen=True)
class Case:
    """A trial: `spoil` changes a finished project, `command` meets it.

    `says` is a regular expression that one line of the answer must match: the knob or file, and its value. `command`
    begins with aclora, stages.<name>, or dvc. `also` looks at the project and the output afterwards and returns what
    is wrong.
    """

    name: str
    spoil: Callable[[Tree], object]
    says: str = ""
    answer: Answer = "error"
    command: tuple[str, ...] = CHECK
    also: Callable[[Tree, str], str | None] | None = None


@dataclass(frozen=True)
class Answered:
    """How a command ended: `status` is None where it had to be killed because it took too long."""

    status: int | None
    out: str
    err: str
    seconds: float


@dataclass
class Result:
    """What came of a trial; it held where `faults` is empty."""

    kind: str
    name: str
    faults: list[str] = field(default_factory=list)
    output: str = ""
    seconds: float = 0.0
    count: int = 1  # of kills, in a chain
    kill: bool = False


def faults(case: Case, answered: Answered, limit: float) -> list[str]:
    """What is wrong with an answer: no line or two, a traceback, a hang, a wrong status, no word of knob or file."""
    both = f"{answered.out}\n{answered.err}"
    if answered.status is None:
        return [f"hangs: killed after {limit:.0f} s"]
    found = []
    if "Traceback (most recent call last)" in both:
        last = [line for line in both.splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
        found.append(f"traceback: {(last or ['?'])[-1][:160]}")
    elif answered.status < 0:
        found.append(f"died of signal {-answered.status}")
    if odd := re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", both.replace("\x1b[0m", "")):
        found.append(f"prints the control character {odd[0]!r} raw")
    if found:
        return found
    errors = [line for line in both.splitlines() if re.match(r"([\w.]+: )?error:", line, re.IGNORECASE)]
    refused = answered.status != 0
    if refused and case.answer in ("note", "fine"):
        return [f"is refused: {(errors or answered.err.splitlines() or ['?'])[0][:200]}"]
    if not refused and case.answer == "error":
        return ["silent: exit status 0" + said_instead(both)]
    if refused:
        if answered.status not in (1, 2) and case.command[0] != "dvc":
            found.append(f"exit status {answered.status}")
        return found + one_line(case, errors, answered.err)
    if case.answer in ("note", "said") and not any(re.search(case.says, line) for line in both.splitlines()):
        found.append(f"silent: no line matches {case.says!r}" + said_instead(both))
    return found


def one_line(case: Case, errors: Sequence[str], err: str) -> list[str]:
    """What is wrong with the error of a command that refused."""
    if case.command[0] == "dvc":  # which adds lines of its own, and finds some faults of params.yaml itself
        named = any(re.search(f"{case.says}|params.yaml", line) for line in errors)
        before_any_stage = bool(errors) and not any("failed to reproduce" in line for line in errors)
        return [] if named or before_any_stage else [f"no error line matches {case.says!r}: {' | '.join(errors)[:200]}"]
    if len(errors) != 1:
        return [f"{len(errors)} error lines: {' | '.join(errors or err.splitlines())[:200]}"]
    found = []
    if not re.search(case.says, errors[0]):
        found.append(f"the line does not match {case.says!r}: {errors[0][:200]}")
    if len(errors[0]) > 10_000:
        found.append(f"the line has {len(errors[0])} characters")
    own = errors[0].startswith("error:")  # typer's and argparse's begin with the usage
    if own and (more := [line for line in err.splitlines() if line and line not in errors and not noted(line)]):
        found.append(f"more than a line: {more[0][:160]}")
    return found


def noted(line: str) -> bool:
    """Is a line of stderr a note, a warning, or progress?"""
    return bool(re.match(r"(warning|note):", line)) or "it/s" in line or "%|" in line


def said_instead(output: str) -> str:
    lines = [line for line in output.splitlines() if line]
    return f" ({lines[-1][:120]})" if lines else ""

"""Runs that are killed at moments from a seed, and repeated: nothing is lost, and the bytes come out the same.

A chain is one stage that has to run again: it is started, killed one to four times, and then run to its end.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.trials.case import Result
from tests.trials.tree import ADAPTER, CHECKS, GENERATED, LOCK, METRICS, STYLE, YAML, Tree, copied, left_over, outs
from tests.trials.trial import pace, started

COUNT = 100
LIMIT = 300.0  # seconds for a whole run


def metrics(*names: str) -> tuple[str, ...]:
    return tuple(f"{METRICS}/{name}" for name in names)


# Module of a stage: its name in dvc.yaml, its share of the kills, how long it takes on one idle core, its outs.
STAGES = {
    "check": ("check", 5, 3.0, (f"{CHECKS}/parameters",)),
    "check_style": (f"check-style@{STYLE}", 5, 3.0, (f"{CHECKS}/styles/{STYLE}",)),
    "caption": (f"caption@{STYLE}", 6, 4.0, (f"data/captions/{STYLE}.jsonl",)),
    "train": (f"train-aclora@{STYLE}", 54, 6.0, (ADAPTER,)),
    "audit": (
        f"restart-audit@{STYLE}",
        6,
        4.0,
        metrics("audit.json", "spectra.npz", "audit", "loss.csv", "restarts.csv"),
    ),
    "generate": (f"generate@{STYLE}", 12, 7.0, (GENERATED, f"{METRICS}/contact_sheet.png")),
    "evaluate": (
        f"evaluate@{STYLE}",
        12,
        7.0,
        metrics("scores.json", "evaluation.json", "per_image.csv", "per_reference.csv"),
    ),
}
SIGNALS = ("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT")
# cascade: the stage, and dvc within 50 ms of it, as where memory runs out. early: dvc before the stage has begun.
VICTIMS = ("stage", "stage", "stage", "dvc", "dvc", "group", "group", "group", "cascade", "cascade", "early")


@dataclass(frozen=True)
class Kill:
    victim: str
    signal: str
    share: float  # of the stage's time, when it is sent
    patient: bool  # wait for what outlives dvc before the next start

    def __str__(self) -> str:
        return f"{self.signal} to {self.victim} at {self.share:.0%}"


@dataclass(frozen=True)
class Chain:
    name: str
    stage: str
    kills: tuple[Kill, ...]
    front: bool  # start with `aclora run` where there is one, else with `dvc repro`
    gap: float  # seconds between the two of a cascade


def chains(seed: int) -> list[Chain]:
    """COUNT kills, in chains."""
    rng, found, left = random.Random(seed), [], COUNT
    while left:
        stage = rng.choices(list(STAGES), [share for _, share, _, _ in STAGES.values()])[0]
        stage = list(STAGES)[len(found)] if len(found) < len(STAGES) else stage  # each at least once
        kills = tuple(kill(rng) for _ in range(min(left, rng.choice((1, 2, 3, 4)))))
        left -= len(kills)
        name = f"{len(found)}: {stage}: {', '.join(map(str, kills))}"
        found.append(Chain(name, stage, kills, rng.random() < 0.5, rng.uniform(0, 0.05)))
    return found


def kill(rng: random.Random) -> Kill:
    victim = rng.choice(VICTIMS)
    # a dvc whose stage runs takes no notice of SIGINT: Ctrl-C reaches the whole group
    chosen = rng.choice({"cascade": SIGNALS[:1], "dvc": SIGNALS[:-1], "early": SIGNALS[:-1]}.get(victim, SIGNALS))
    return Kill(victim, chosen, rng.random(), rng.random() < 0.5)


def run(chain: Chain, finished: Path, work: Path) -> Result:
    """Kill, repeat, and compare with the run that nobody killed."""
    start = time.monotonic()
    tree = copied(finished, work)
    forget(tree, chain.stage)
    whole, faults, told = outs(finished), [], []
    for one in chain.kills:
        told.append(killed(tree, chain, one, faults))
        faults += half_written(work, whole)
    with again(tree, chain) as process:
        try:
            output = process.communicate(timeout=LIMIT)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output = process.communicate()[0]
            faults.append("the run after it hangs")
    if process.returncode:
        faults.append(f"the run after it ends with {process.returncode}: {last(output)}")
    if "Traceback" in output:
        faults.append(f"the run after it prints a traceback: {last(output)}")
    await_session(process.pid)
    faults += different(work, whole) + [f"left half-written: {part}" for part in left_over(work)[:1]]
    if lock(tree) != lock(Tree(finished)):
        faults.append("dvc.lock is not that of a run that nobody killed")
    if not readable(work / LOCK):
        faults.append(f"{LOCK} stays damaged")
    faults = list(dict.fromkeys(faults))
    return Result("", chain.name, faults, "\n".join([*told, output]), time.monotonic() - start, len(chain.kills), True)


def forget(tree: Tree, stage: str) -> None:
    """Let one stage have to run again: DVC knows nothing of it, and its outs are gone."""
    name, _, _, made = STAGES[stage]
    for out in made:
        tree.remove(out)
    locked = lock(tree)
    del locked["stages"][name]
    out = io.BytesIO()
    YAML.dump(locked, out)  # as DVC writes it: another writer's numbers would be other values to it
    tree.write("dvc.lock", out.getvalue())
    shutil.rmtree(tree.folder / ".dvc/cache/runs", ignore_errors=True)
    if stage == "evaluate":
        shutil.rmtree(tree.folder / ".cache", ignore_errors=True)  # what encoders made: else nothing takes time


def again(tree: Tree, chain: Chain) -> subprocess.Popen:
    """The run that must succeed: `aclora run`, which mends what a kill left, or what README says to do by hand."""
    if front():
        return started(tree.folder, ("aclora", "run"))
    if not readable(tree.folder / LOCK):
        tree.remove(LOCK)
    return started(tree.folder, ("dvc", "repro"))


def front() -> bool:
    """Is there an `aclora run`?"""
    import typer

    from aclora.cli.main import app

    return "run" in typer.main.get_command(app).commands


def killed(tree: Tree, chain: Chain, one: Kill, faults: list[str]) -> str:
    """Start the run, kill it, and return what it printed. One that was faster runs again and is killed sooner."""
    for tries in range(8):
        if not readable(tree.folder / LOCK) and not front():
            tree.remove(LOCK)
        process = started(tree.folder, ("aclora", "run") if chain.front and front() else ("dvc", "repro"))
        early = one.victim == "early"
        stage = None if early else await_stage(process, chain.stage)
        seconds = 1.5 if early else STAGES[chain.stage][2] * pace()
        wait(process, one.share * seconds / 2**tries)
        for victim in victims(process, stage, one.victim):
            send(process, victim, getattr(signal, one.signal))
            if one.victim == "cascade":
                time.sleep(chain.gap)
        output = printed(process, one, faults)
        if one.patient or one.victim not in ("dvc", "early"):
            await_session(process.pid)
        if process.returncode:
            break
        if STAGES[chain.stage][0] in lock(tree)["stages"]:
            forget(tree, chain.stage)
    else:
        faults.append(f"{one}: the run ends as if nothing had been")
    if "Traceback" in output and one.signal == "SIGINT" and not early:
        faults.append(f"{one}: a traceback of {len(output.splitlines())} lines: {last(output)}")
    return f"--- {one}: exit status {process.returncode}\n{output}"


def send(process: subprocess.Popen, victim: psutil.Process | None, number: int) -> None:
    """A signal to one process, or with None to the whole group; nothing where it has ended."""
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        if victim is None:
            os.killpg(process.pid, number)
        else:
            victim.send_signal(number)


def printed(process: subprocess.Popen, one: Kill, faults: list[str]) -> str:
    """What the run printed until it ended."""
    try:
        if one.victim in ("dvc", "early"):
            return drained(process)
        return process.communicate(timeout=LIMIT)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        faults.append(f"{one}: does not end")
        return process.communicate()[0]


def drained(process: subprocess.Popen) -> str:
    """What dvc printed; what it leaves alone keeps the pipe open, so it is not waited for."""
    process.wait(timeout=LIMIT)
    os.set_blocking(process.stdout.fileno(), False)
    with contextlib.suppress(TypeError, OSError):
        return process.stdout.read() or ""
    return ""


def victims(process: subprocess.Popen, stage: psutil.Process | None, victim: str) -> list:
    """Whom to signal, in order; None is the whole group."""
    dvc = find(process, is_dvc) or psutil.Process(process.pid) if process.poll() is None else None
    found = {"stage": [stage], "dvc": [dvc], "early": [dvc], "cascade": [stage, dvc], "group": [None]}[victim]
    return found if victim == "group" else [one for one in found if one is not None]


def await_stage(process: subprocess.Popen, stage: str) -> psutil.Process | None:
    end = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < end:
        if found := find(process, lambda words: f"stages.{stage}" in words):
            return found
        time.sleep(0.02)
    return None


def is_dvc(words: list[str]) -> bool:
    return "repro" in words and any(Path(word).name == "dvc" for word in words)


def find(process: subprocess.Popen, wanted: Callable[[list[str]], bool]) -> psutil.Process | None:
    """The youngest process of those that one started whose command is wanted; a shell holds a command as one word."""
    with contextlib.suppress(psutil.Error):
        for child in reversed([psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]):
            with contextlib.suppress(psutil.Error):
                if wanted(child.cmdline()):
                    return child
    return None


def wait(process: subprocess.Popen, seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)


def await_session(leader: int) -> None:
    """Until nothing of a session runs any more."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end and any(session(pid) == leader for pid in psutil.pids()):
        time.sleep(0.1)


def session(pid: int) -> int:
    try:
        return os.getsid(pid) if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else 0
    except (OSError, psutil.Error):
        return 0


def half_written(folder: Path, whole: dict[str, str]) -> list[str]:
    """Outs that are not as a run that nobody killed makes them. A folder is there as a whole or not at all."""
    now = outs(folder)
    wrong = [name for name, digest in now.items() if name in whole and digest != whole[name]]
    for place in (ADAPTER, GENERATED):
        expected = {name for name in whole if name.startswith(place)}
        if (folder / place).exists() and expected - now.keys():
            wrong.append(place)
    return [f"a half-written out: {wrong[0]}"] if wrong else []


def different(folder: Path, whole: dict[str, str]) -> list[str]:
    now = outs(folder)
    lost, other = [n for n in whole if n not in now], [n for n in whole if n in now and now[n] != whole[n]]
    return [f"lost: {name}" for name in lost[:1]] + [f"other bytes: {name}" for name in other[:1]]


def lock(tree: Tree) -> dict:
    return YAML.load(tree.read("dvc.lock"))


def readable(place: Path) -> bool:
    """Is DVC's lock file absent or whole?"""
    try:
        json.loads(place.read_text())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def last(output: str) -> str:
    return ([line for line in output.splitlines() if line.strip()] or ["nothing printed"])[-1][:200]

"""`make trials`: try every bad input and kill, print what did not hold, and write docs/results/trials.md.

    python -m tests.trials                     all of it
    python -m tests.trials --only "style names"
    python -m tests.trials --case "train.epochs: many"
    python -m tests.trials --all               every listed case, not those that the seed draws

The exit status is 1 where anything did not hold. `--work` keeps the finished project for another time.
"""

import argparse
import dataclasses
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: one thread a process, as many processes as cores

import aclora
from tests.trials import kills, kinds, table, trial
from tests.trials.case import Case, Result
from tests.trials.tree import finish, outs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.trials", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="what the fuzzer and the kills are drawn from")
    parser.add_argument("--only", metavar="KIND", action="append", help="this kind alone, by the start of its name")
    parser.add_argument("--case", metavar="NAME", help="cases whose name holds this; prints their output")
    parser.add_argument("--all", action="store_true", help="every listed case")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, help="a folder to keep the finished project in")
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would ours
    with tempfile.TemporaryDirectory(prefix="aclora-trials-") as scratch:
        return trials(asked, asked.work or Path(scratch))


def trials(asked: argparse.Namespace, work: Path) -> int:
    start = time.monotonic()
    finished = work / "project"
    work.mkdir(parents=True, exist_ok=True)
    if not finished.is_dir():
        print("a small project, run to its end …", flush=True)
        finish(finished)
    whole = outs(finished, ["."])
    for fault in trial.warm(finished, work / f"warm-{os.getpid()}" / "project"):
        print(fault)
    trial.measure_pace(finished, work / f"pace-{os.getpid()}" / "project")
    print(
        f"ready after {time.monotonic() - start:.0f} s, pace {trial.pace():.1f}; {Path(aclora.__file__).parent}",
        flush=True,
    )
    results = []
    for kind, cases in kinds.chosen(asked.seed, asked.all, asked.only, asked.case).items():
        results += tried(kind, cases, finished, work, asked.jobs, bool(asked.case))
    if outs(finished, ["."]) != whole:
        sys.exit("the finished project was changed by a trial: a fault of these trials")
    if not (asked.only or asked.case or asked.all):
        table.write(results, asked.seed)
    bad, count = [r for r in results if r.faults], sum(r.count for r in results)
    print(f"{count} tried, {count - sum(r.count for r in bad)} held, {time.monotonic() - start:.0f} s")
    return 1 if bad else 0


def tried(kind: str, cases: list[kinds.Trial], finished: Path, work: Path, jobs: int, talk: bool) -> list[Result]:
    """Try cases of one kind, `jobs` at once; says at once what did not hold."""
    start, results = time.monotonic(), []
    with multiprocessing.get_context("fork").Pool(jobs, _begin, (kind, cases, finished, work)) as pool:
        for result in pool.imap_unordered(_try, range(len(cases)), chunksize=1):
            results.append(result)
            if result.faults or talk:
                print(f"{'✗' if result.faults else '✓'} {kind} · {result.name}: {'; '.join(result.faults) or 'held'}")
                print("\n".join(f"    {line}" for line in result.output.splitlines()) if talk else "", end="\n" * talk)
                sys.stdout.flush()
    held = sum(result.count for result in results if not result.faults)
    print(
        f"{kind}: {held} of {sum(result.count for result in results)} held, {time.monotonic() - start:.0f} s",
        flush=True,
    )
    return sorted(results, key=lambda result: [case.name for case in cases].index(result.name))


_given: tuple = ()


def _begin(*given) -> None:
    global _given
    _given = given


def _try(number: int) -> Result:
    """In a process of the pool: one case in a folder of this process's own."""
    kind, cases, finished, work = _given
    place = work / f"trial-{os.getpid()}" / "project"
    place.parent.mkdir(exist_ok=True)
    try:
        case = cases[number]
        result = trial.run(case, finished, place) if isinstance(case, Case) else kills.run(case, finished, place)
        return dataclasses.replace(result, kind=kind)
    except Exception as error:  # of the trial's own: it must not end the others
        where = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"the trial itself failed: {type(error).__name__}: {error}, {Path(where.filename).name}:{where.lineno}"
        return Result(kind, cases[number].name, [fault])
    finally:
        shutil.rmtree(place.parent, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

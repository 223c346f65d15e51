"""DVC's graph as Prefect tasks: a task for each stage, in DVC's order, its outcome the name of its state."""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger, runtime, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from aclora.core import params
from aclora.core.errors import InputError
from aclora.project import process
from flows import dvc_graph, worktree
from flows.dvc_graph import Stage, changed, stages

MOST_STARTS = 5
DONE = ("Ran", "Restored", "Unchanged")
BUSY = "is busy, it is being blocked by"


@dataclass(frozen=True)
class Result:
    """What became of a stage: Ran, Restored (from the run-cache), Unchanged, Failed or NotRun, and why."""

    stage: Stage
    outcome: str
    seconds: float
    why: str = ""


def begin() -> None:
    """To be called first by a flow: it ends with its worker; started five times, it is not started again.

    What a dvc that was killed has left half-written is removed.

    Raises `InputError`.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        process.end_with_parent()
    process.mend_lock(get_run_logger().info)
    if (runtime.flow_run.run_count or 0) > MOST_STARTS:
        raise InputError(f"the run crashed {MOST_STARTS} times: see its log, then start another")


def run(styles: list[str] | None, remote: bool) -> list[Result]:
    """Run the stages of `styles` (None: the whole graph) as Prefect tasks, style after style.

    A stage that fails keeps those that need it from running, and nothing else. With `remote` a stage is fetched from
    the remote's run-cache where that has it, and the run-cache is pushed in the end; where that fails, the last
    result says so.
    """
    results, states = {}, {}
    for _, group in itertools.groupby(stages(styles), key=lambda s: s.style or s.name):
        group = list(group)
        stale = changed([s.name for s in group])
        for stage in group:
            before = [results[name] for name in stage.needs]
            failed = [r.stage.name for r in before if r.outcome not in DONE]
            moved = stage.name in stale or any(r.outcome != "Unchanged" for r in before)
            start = time.monotonic()
            states[stage.name] = state = _task.with_options(name=stage.name.split("@")[0], task_run_name=stage.name)(
                stage.name,
                stage.style,
                remote,
                moved,
                failed,
                wait_for=[states[r.stage.name] for r in before if r.outcome in DONE],
                return_state=True,
            )
            why = state.message or "" if state.name not in DONE else ""
            results[stage.name] = Result(stage, state.name, time.monotonic() - start, why)
    if ran := [name for name, r in results.items() if r.outcome == "Ran"]:
        dvc_graph.remember(ran)
    if remote and (here := [name for name, r in results.items() if r.outcome in ("Ran", "Restored")]):
        state = push(here, return_state=True)  # Restored: a run that crashed had not pushed it yet
        if not state.is_completed():
            results["push"] = Result(Stage("push", (), None), "Failed", 0.0, state.message or "")
    return list(results.values())


@task(cache_policy=NO_CACHE, persist_result=False)
def _task(name: str, style: str | None, remote: bool, moved: bool, failed: list[str]) -> State:
    log = get_run_logger()
    if failed:
        return Cancelled(name="NotRun", message=f"it needs {', '.join(failed)}")
    if not moved:
        return Completed(name="Unchanged", message="dvc: nothing changed")
    progress = Progress(style) if style else None
    args = ["repro", "--single-item", *(["--pull"] if remote else []), name]
    status, lines = process.dvc(*args, log=log.info, tick=progress)
    told = False
    while status and any(BUSY in line for line in lines):
        if not told:
            log.info("another run or command is at work on this stage: waiting for it")
            told = True
        time.sleep(process.TICK)
        status, lines = process.dvc(*args, log=log.debug, tick=progress)
    if status:
        return Failed(message=process.reason(lines))
    if progress:
        progress.end()
    if any("didn't change, skipping" in line for line in lines):
        return Completed(name="Unchanged", message="dvc: nothing changed")
    if any("is cached - skipping run" in line for line in lines):
        return Completed(name="Restored", message="dvc: from the run-cache")
    return Completed(name="Ran", message="dvc: ran")


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="fetch")
def fetch() -> None:
    """The pictures that git knows by their .dvc files alone. Raises `InputError` where the remote has them not."""
    files = worktree.git("ls-files", "*.dvc", "**/*.dvc").split()
    if files:
        status, lines = process.dvc("pull", *files, log=get_run_logger().info)
        if status:
            raise InputError(f"dvc pull: {process.reason(lines)}")


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="push")
def push(names: list[str]) -> State:
    """The stages' outs go to the remote, their run-cache too; a remote that refuses fails the task, not the stages."""
    status, lines = process.dvc("push", "--run-cache", *names, log=get_run_logger().info)
    if not status:
        dvc_graph.push_kept(names)
    return Failed(message=process.reason(lines)) if status else Completed(message="dvc: pushed")


class Progress:
    """A progress artifact that follows a training's history; silent for a stage that trains nothing."""

    def __init__(self, style: str):
        self.style, self.start, self.file, self.artifact, self.said = style, time.time(), None, None, ""

    def __call__(self) -> None:
        """Look once, and show what is new."""
        try:
            self._look()
        except Exception as error:  # no file yet, half of a line, no server: a stage does not fail of it
            get_run_logger().debug("no progress to show: %s", one_line(error))

    def _look(self):
        from aclora.project.fingerprint import train_fingerprint

        if self.file is None:
            self.file = Path(".cache/training", train_fingerprint(self.style), "history.jsonl")
            self.epochs = params.value("train.epochs")
        if self.file.stat().st_mtime < self.start:
            return
        rows = [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]
        epochs = [row for row in rows if row.get("event") == "epoch"]
        restarts = [row for row in rows if row.get("event") == "restart"]
        if not epochs:
            return
        said = f"epoch {epochs[-1]['epoch']} of {self.epochs}, loss {epochs[-1]['loss']:.4f}"
        if restarts:
            said += f", p {restarts[-1]['p']:.3f}, I {restarts[-1]['I']}"
        if said != self.said:
            self.said = said
            self._show(100 * epochs[-1]["epoch"] / self.epochs, said)

    def end(self) -> None:
        """The training is over: 100 %."""
        if self.artifact:
            with contextlib.suppress(Exception):
                self._show(100.0, self.said)

    def _show(self, percent, said):
        if self.artifact:
            update_progress_artifact(self.artifact, percent, description=f"{self.style}: {said}")
        else:
            key = "training-" + "".join(c if c.isalnum() else "-" for c in self.style.lower())
            self.artifact = create_progress_artifact(percent, key=key, description=f"{self.style}: {said}")


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="publish")
def publish(styles: list[str]) -> dict[str, str]:
    """The styles' runs in MLflow, by style; where MLflow does not answer, none and a warning: files have it all."""
    if not styles or os.environ.get("ACLORA_TRACKING") == "off":
        return {}
    try:
        from aclora.tracking import store

        return store.publish(styles)
    except Exception as error:  # whatever it is, a run that made its results has not failed
        get_run_logger().warning("MLflow has not got the results, `aclora publish` sends them: %s", one_line(error))
        return {}


def one_line(error: BaseException) -> str:
    """An exception in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def complete(results: list[Result]) -> list[str]:
    """The styles of which no stage is missing."""
    bad = {r.stage.style for r in results if r.outcome not in DONE}
    return [s for s in dict.fromkeys(r.stage.style for r in results) if s and s not in bad]


def report(results: list[Result], links: dict[str, str], key: str) -> State:
    """Show what became of every stage as a table, a row a style; the flow's last state: failed with all reasons."""
    rows = {}
    for result in results:
        row = rows.setdefault(result.stage.style or "all", {"style": result.stage.style or "all"})
        took = f" {result.seconds:.0f} s" if result.outcome in ("Ran", "Restored") else ""
        row[result.stage.name.split("@")[0]] = result.outcome.lower() + took
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    whys = [f"{r.stage.name}: {r.why}" for r in results if r.outcome not in DONE]
    table = [
        {c: row.get(c, "") for c in columns}
        | {"MLflow": link(links.get(name))}
        | ({"why": "; ".join(_of(name, results))} if whys else {})
        for name, row in rows.items()
    ]
    create_table_artifact(table, key=key, description="What became of each stage")
    counts = {o: sum(r.outcome == o for r in results) for o in (*DONE, "Failed", "NotRun")}
    said = ", ".join(f"{n} {o.lower()}" for o, n in counts.items() if n)
    if whys:
        return Failed(message=f"{said}. {'; '.join(w for w in whys if 'it needs' not in w)}")
    return Completed(message=said)


def link(address: str | None) -> str:
    """A run's address as markdown; of a store without a server its name there."""
    return f"[run]({address})" if address and address.startswith("http") else address or ""


def _of(name, results) -> Iterator[str]:
    return (f"{r.stage.name}: {r.why}" for r in results if (r.stage.style or "all") == name and r.why)

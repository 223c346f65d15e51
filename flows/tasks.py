"""DVC's stages as Prefect tasks: a task for each stage, in DVC's order, its outcome the name of its state."""

import contextlib
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from aclora.core import params
from aclora.core.errors import InputError
from aclora.core.files import read_jsonl
from aclora.project import dvc, git, pipeline, process
from flows import dvc_graph
from flows.dvc_graph import Stage

MAX_STARTS = 5
DONE = ("Ran", "Restored", "Unchanged")
BUSY = "is busy, it is being blocked by"  # what dvc says of a stage that another dvc runs


@dataclass(frozen=True)
class Result:
    """What became of a stage: Ran, Restored (from the run-cache), Unchanged, Failed or NotRun, and why."""

    stage: Stage
    outcome: str
    seconds: float
    why: str = ""


def begin() -> None:
    """Prepare a flow's run; every flow calls it first.

    The run ends with its worker, and what killed processes left is mended. Raises `InputError` for a run that crashed
    five times, and for what cannot be mended.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        process.end_with_parent()
    pipeline.prepare(get_run_logger().info)
    if (flow_run.run_count or 0) > MAX_STARTS:
        raise InputError(f"the run crashed {MAX_STARTS} times: see its log, then start another")


def run(styles: list[str] | None, remote: bool) -> list[Result]:
    """Run the stages of `styles` (None: the whole graph) as Prefect tasks, style after style.

    A stage that fails prevents those that need it, and nothing else. With `remote`, stages that the remote's run-cache
    has are fetched instead of run, and what ran here is pushed at the end; if that fails, the last result says so.
    """
    results, states = {}, {}
    for _, group in itertools.groupby(dvc_graph.stages(styles), key=lambda s: s.style or s.name):
        group = list(group)
        stale = dvc_graph.changed([s.name for s in group])
        for stage in group:
            needed = [results[name] for name in stage.needs]
            failed = [r.stage.name for r in needed if r.outcome not in DONE]
            changed = stage.name in stale or any(r.outcome != "Unchanged" for r in needed)
            start = time.monotonic()
            stage_task = _stage.with_options(name=stage.name.split("@")[0], task_run_name=stage.name)
            states[stage.name] = state = stage_task(
                stage.name,
                stage.style,
                remote,
                changed,
                failed,
                wait_for=[states[r.stage.name] for r in needed if r.outcome in DONE],
                return_state=True,
            )
            outcome = state.name or "Failed"
            why = state.message or "" if outcome not in DONE else ""
            results[stage.name] = Result(stage, outcome, time.monotonic() - start, why)
    if ran := [name for name, r in results.items() if r.outcome == "Ran"]:
        dvc_graph.save_to_run_cache(ran)
    # Restored ones too: a run that crashed may not have pushed them
    if remote and (new := [name for name, r in results.items() if r.outcome in ("Ran", "Restored")]):
        state = push(new, return_state=True)
        if not state.is_completed():
            results["push"] = Result(Stage("push", (), None), "Failed", 0.0, state.message or "")
    return list(results.values())


@task(cache_policy=NO_CACHE, persist_result=False)
def _stage(name: str, style: str | None, remote: bool, changed: bool, failed: list[str]) -> State:
    log = get_run_logger()
    if failed:
        return Cancelled(name="NotRun", message=f"it needs {', '.join(failed)}")
    if not changed:
        return Completed(name="Unchanged", message="dvc: nothing changed")
    progress = Progress(style) if style else None
    options = ["--single-item", *(["--pull"] if remote else [])]
    status, lines = pipeline.run_stages([name], *options, log=log.info, tick=progress)
    if status and _busy(lines):
        log.info("another run or command is at work on this stage: waiting for it")
    while status and _busy(lines):
        time.sleep(process.TICK)
        status, lines = pipeline.run_stages([name], *options, log=log.debug, tick=progress)
    if status:
        return Failed(message=process.reason(lines))
    if progress:
        progress.end()
    if any("didn't change, skipping" in line for line in lines):
        return Completed(name="Unchanged", message="dvc: nothing changed")
    if any("is cached - skipping run" in line for line in lines):
        return Completed(name="Restored", message="dvc: from the run-cache")
    return Completed(name="Ran", message="dvc: ran")


def _busy(lines):
    return any(BUSY in line for line in lines)


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="fetch")
def fetch() -> None:
    """Get the pictures that git knows by their .dvc files alone. Raises `InputError` if the remote lacks them."""
    files = git.run("ls-files", "-z", "*.dvc", "**/*.dvc").split("\0")[:-1]
    if files:
        status, lines = dvc.run("pull", "--", *files, log=get_run_logger().info)
        if status:
            raise InputError(f"dvc pull: {process.reason(lines)}")


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="push")
def push(names: list[str]) -> State:
    """Send the stages' outs and their run-cache to the remote; one that refuses fails the task, not the stages."""
    status, lines = dvc.run("push", "--run-cache", *names, log=get_run_logger().info)
    if not status:
        dvc_graph.push_outs_in_git(names)
    return Failed(message=process.reason(lines)) if status else Completed(message="dvc: pushed")


class Progress:
    """A progress artifact that follows a training's history; silent for a stage that trains nothing."""

    def __init__(self, style: str):
        self.style, self.start, self.text = style, time.time(), ""
        self.file: Path | None = None
        self.artifact: UUID | None = None

    def __call__(self) -> None:
        """Look once, and show what is new."""
        try:
            self._look()
        except Exception as error:  # no file yet, half of a line, no server: none of that fails a stage
            get_run_logger().debug("no progress to show: %s", one_line(error))

    def _look(self):
        from aclora.project.fingerprint import train_fingerprint

        if self.file is None:
            self.file = Path(".cache/training", train_fingerprint(self.style), "history.jsonl")
            self.epochs = params.value("train.epochs")
        if self.file.stat().st_mtime < self.start:
            return
        rows = read_jsonl(self.file)
        epochs = [row for row in rows if row.get("event") == "epoch"]
        restarts = [row for row in rows if row.get("event") == "restart"]
        if not epochs:
            return
        text = f"epoch {epochs[-1]['epoch']} of {self.epochs}, loss {epochs[-1]['loss']:.4f}"
        if restarts:
            text += f", p {restarts[-1]['p']:.3f}, I {restarts[-1]['I']}"
        if text != self.text:
            self.text = text
            self._show(100 * epochs[-1]["epoch"] / self.epochs)

    def end(self) -> None:
        """The training is over: 100 %."""
        if self.artifact:
            with contextlib.suppress(Exception):
                self._show(100.0)

    def _show(self, percent):
        description = f"{self.style}: {self.text}"
        if self.artifact:
            update_progress_artifact(self.artifact, percent, description=description)
        else:
            key = "training-" + "".join(c if c.isalnum() else "-" for c in self.style.lower())
            self.artifact = cast(UUID, create_progress_artifact(percent, key=key, description=description))


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="publish")
def publish(styles: list[str]) -> dict[str, str]:
    """Publish the styles' runs in MLflow; their addresses by style. If MLflow fails: none, and a warning."""
    if not styles or os.environ.get("ACLORA_TRACKING") == "off":
        return {}
    try:
        from aclora.tracking import publish as tracking

        return tracking.publish(styles)
    except Exception as error:  # whatever it is, a run that has its results did not fail: they are in files
        get_run_logger().warning("MLflow did not get the results, `aclora publish` sends them: %s", one_line(error))
        return {}


def one_line(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def complete_styles(results: list[Result]) -> list[str]:
    """The styles of which every stage is done."""
    incomplete = {r.stage.style for r in results if r.outcome not in DONE}
    return [s for s in dict.fromkeys(r.stage.style for r in results) if s and s not in incomplete]


def report(results: list[Result], links: dict[str, str], key: str) -> State:
    """Show each stage's outcome in a table, a row per style; the flow's last state, with all reasons if it failed."""
    rows = {}
    for result in results:
        row = rows.setdefault(result.stage.style or "all", {"style": result.stage.style or "all"})
        took = f" {result.seconds:.0f} s" if result.outcome in ("Ran", "Restored") else ""
        row[result.stage.name.split("@")[0]] = result.outcome.lower() + took
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    reasons = [f"{r.stage.name}: {r.why}" for r in results if r.outcome not in DONE]
    table = [
        {c: row.get(c, "") for c in columns}
        | {"MLflow": link(links.get(name))}
        | ({"why": _reasons_of(name, results)} if reasons else {})
        for name, row in rows.items()
    ]
    create_table_artifact(table, key=key, description="What became of each stage")
    counts = {o: sum(r.outcome == o for r in results) for o in (*DONE, "Failed", "NotRun")}
    summary = ", ".join(f"{n} {o.lower()}" for o, n in counts.items() if n)
    if reasons:
        return Failed(message=f"{summary}. {'; '.join(r for r in reasons if 'it needs' not in r)}")
    return Completed(message=summary)


def link(address: str | None) -> str:
    """A run's address as markdown; in a store without a server, its name there."""
    return f"[run]({address})" if address and address.startswith("http") else address or ""


def _reasons_of(name, results):
    return "; ".join(f"{r.stage.name}: {r.why}" for r in results if (r.stage.style or "all") == name and r.why)

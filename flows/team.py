"""`team`: one style per worker, each in its own clone; the results are gathered here, in one dvc.lock."""

import contextlib
import time
from typing import cast
from uuid import UUID

import httpx
from prefect import flow, get_client, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import filters
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_UI_URL
from prefect.states import Completed, Failed

from aclora.core.errors import InputError, require
from aclora.project import pipeline, process
from flows import dvc_graph, tasks, worktree
from flows.retrain import retrain

GIVE_UP = 600.0  # seconds that a crashed run has to start again
FINAL = (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED)


@flow
def team(styles: list[str] | None = None, margin: float = 0.05) -> State:
    """Have the pool's workers run what changed, commit and push dvc.lock, and judge as `retrain` does.

    A worker of the pool `coordinator` runs it, in the coordinator's clone. Nothing trains there: each style with a
    changed input is a run of the deployment `style` at this commit, in the clone of the worker that takes it, and its
    results come back through DVC's remote.

    Args:
        styles: entries under `styles` in params.yaml; without any, all.
        margin: how much worse, as a share of the champion's value, is still no loss? 0 … 1.
    """
    log = get_run_logger()
    try:
        tasks.begin()
        require(0 <= margin <= 1, "margin", margin, "between 0 and 1")
        dvc_graph.require_remote()
        worktree.refuse_dirty(dvc_graph.outs(), "team")
        log.info("git: %s", worktree.pull() or "no upstream branch, nothing fetched")
        commit = worktree.pushed_commit()
        tasks.fetch()
        names = dvc_graph.chosen(styles)
        changed = dvc_graph.changed_styles(names)
        log.info("styles with changed inputs: %s", ", ".join(changed) or "none")
        runs = {style: submit(style, commit).id for style in changed}
        states = wait(runs)
        done = [style for style in changed if states[style].is_completed()]
        ran_here = gather(done) if done else []
        committed = worktree.commit(dvc_graph.outs(), f"team: {', '.join(done)}")
        pushed = bool(committed) and worktree.push()
    except InputError as error:
        return Failed(message=str(error))
    rows = [
        {"style": style, "run": f"[{runs[style]}]({PREFECT_UI_URL.value()}/runs/flow-run/{runs[style]})"}
        | {"outcome": f"{states[style].name}: {states[style].message}"}
        for style in changed
    ]
    create_table_artifact(rows, key="team", description=f"The workers' runs, commit {committed or commit[:7]}")
    summary = f"{len(done)} of {len(changed)} styles by the workers"
    summary += f", committed {committed}{' and pushed' if pushed else ''}" if committed else ""
    summary += f", but run here: {', '.join(ran_here)}" if ran_here else ""
    judged = retrain([name for name in names if name not in changed or name in done], margin, return_state=True)
    summary += f"; {judged.message}"
    lost = [f"{style}: {states[style].name}, {states[style].message}" for style in changed if style not in done]
    if lost or not judged.is_completed():
        return Failed(message="; ".join([summary, *lost]))
    return Completed(message=summary)


def submit(style: str, commit: str) -> FlowRun:
    """A run of `style` for one style at the commit: the unfinished one if there is one, else a new one."""
    tag = f"{style} {commit[:12]}"
    unfinished = filters.FlowRunFilter(
        tags=filters.FlowRunFilterTags(all_=[tag]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(not_any_=list(TERMINAL_STATES))),
    )
    with get_client(sync_client=True) as client:
        if found := client.read_flow_runs(flow_run_filter=unfinished):
            return found[0]
    parameters = {"styles": [style], "remote": True, "commit": commit}
    return cast(FlowRun, run_deployment("style/style", parameters=parameters, tags=[tag], timeout=0))


def wait(runs: dict[str, UUID]) -> dict[str, State]:
    """Each run's final state by style; Crashed becomes final if the run does not start again within ten minutes."""
    states, crashed = {}, {}
    with get_client(sync_client=True) as client:
        while waiting := [style for style in runs if style not in states]:
            for style in waiting:
                with contextlib.suppress(httpx.HTTPError):  # the server restarts
                    if (state := client.read_flow_run(runs[style]).state) is None:
                        continue
                    since = crashed.setdefault(style, time.monotonic())
                    if state.type != StateType.CRASHED:
                        del crashed[style]
                    if state.type in FINAL or time.monotonic() - since > GIVE_UP:
                        states[style] = state
                        get_run_logger().info("%s: %s, %s", style, state.name, state.message)
            time.sleep(process.TICK)
    return states


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="gather")
def gather(styles: list[str]) -> list[str]:
    """Restore the workers' results from the remote; returns the stages that DVC had to run here, usually none.

    Raises `InputError` with DVC's reason.
    """
    names = [stage.name for stage in dvc_graph.stages(styles)]
    status, lines = pipeline.run_stages(names, "--pull", log=get_run_logger().info)
    if status:
        raise InputError(f"dvc repro --pull: {process.reason(lines)}")
    return [line.split("'")[1] for line in lines if line.startswith("Running stage '")]

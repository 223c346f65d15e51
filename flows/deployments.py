"""What `make server` and `python -m flows.server deploy` put on a Prefect server: pools, deployments, automations."""

import os
import subprocess
import sys
from datetime import timedelta

from aclora.core.errors import InputError
from flows.background import QUIET

POOL = "gpu"
COORDINATOR = "coordinator"
SILENCE = 300  # seconds without a heartbeat; heartbeats come every 30
FLOWS = ("style", "retrain", "sweep")  # prefect.yaml's deployments that a single machine serves


def deploy(workers: int | None = None, silence: int = SILENCE, team: bool = False) -> None:
    """Create the work pool, prefect.yaml's deployments, and the automations that start a crashed run again.

    With `team`, or where the server has the pool `coordinator` already, the deployment `team` too: without a worker
    in that pool Prefect's pages show it as not ready. Raises `InputError` if the server does not answer or refuses.
    """
    import httpx
    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolUpdate
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise InputError("no Prefect server is known: set PREFECT_API_URL")
    try:
        with get_client(sync_client=True) as client:  # Prefect's commands take seconds each to start
            existing = {pool.name for pool in client.read_work_pools()}
            team = team or COORDINATOR in existing
            for pool in {POOL, *([COORDINATOR] if team else [])} - existing:
                _prefect("work-pool", "create", pool, "--type", "process")
            if workers:
                client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=workers))
    except httpx.HTTPError as error:
        raise InputError(f"Prefect at {PREFECT_API_URL.value()}: {' '.join(str(error).split())}") from None
    _prefect("deploy", *(word for name in (*FLOWS, *(["team"] if team else [])) for word in ("--name", name)))
    automate(silence)


def automate(silence: int) -> None:
    """Create both automations unless they exist.

    A run of the pool that crashed is scheduled again, the same run with the same parameters; a run without a heartbeat
    for `silence` seconds has crashed.
    """
    from prefect import get_client
    from prefect.automations import AutomationCore, EventTrigger, Posture
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState

    in_pool = {
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": {"prefect.resource.role": "work-pool", "prefect.resource.name": POOL},
        "for_each": {"prefect.resource.id"},
        "threshold": 1,
    }
    # Not Crashed: two triggers on one event collide in sqlite, and the run is AwaitingRetry at once.
    ends = {f"prefect.flow-run.{s}" for s in ("Completed", "Failed", "Cancelled", "AwaitingRetry")}
    heartbeat = "prefect.flow-run.heartbeat"
    crashed = EventTrigger(expect={"prefect.flow-run.Crashed"}, posture=Posture.Reactive, **in_pool)
    silent = EventTrigger(
        after={heartbeat},
        expect={heartbeat, *ends},
        posture=Posture.Proactive,
        within=timedelta(seconds=silence),
        **in_pool,
    )
    again, gone = "it crashed: started again", f"silent for {silence} seconds"
    retry = ChangeFlowRunState(state=StateType.SCHEDULED, name="AwaitingRetry", message=again, force=False)
    lost = ChangeFlowRunState(state=StateType.CRASHED, name=None, message=gone, force=False)
    with get_client(sync_client=True) as client:
        for name, trigger, action in (("restart a crashed run", crashed, retry), ("crash a silent run", silent, lost)):
            if not client.read_automations_by_name(name):  # one that exists stays: no crash goes unseen meanwhile
                client.create_automation(AutomationCore(name=name, trigger=trigger, actions=[action]))


def retry_crashed() -> None:
    """Schedule the pool's crashed runs again: the automation did not see those that crashed while no server ran."""
    from prefect import get_client
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.states import AwaitingRetry

    crashed = filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[StateType.CRASHED]))
    in_pool = filters.WorkPoolFilter(name=filters.WorkPoolFilterName(any_=[POOL]))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(
            flow_run_filter=filters.FlowRunFilter(state=crashed), work_pool_filter=in_pool
        ):
            client.set_flow_run_state(run.id, AwaitingRetry(message="it crashed: started again"))


def _prefect(*args):
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *args],
        capture_output=True,
        text=True,
        env=os.environ | QUIET | {"COLUMNS": "200"},
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise InputError(f"prefect {' '.join(args)}: {lines[-1] if lines else 'failed'}")

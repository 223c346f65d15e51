"""`python -m flows.server start|stop|deploy`: Prefect's server, MLflow and workers on this machine's loopback."""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

import psutil

from aclora.core.errors import InputError
from aclora.core.files import read_json, write_atomically
from aclora.project import process

HOST = "127.0.0.1"
FOLDER = Path(".server")
POOL = "gpu"
COORDINATOR = "coordinator"
DEADLINE = 120.0  # seconds for a server to answer
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
SILENCE = 300  # seconds; heartbeats come every 30


def main() -> int:
    """Entry point; the exit status is 1 after a one-line error."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.server", description="Prefect's server, MLflow and workers on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    begin = commands.add_parser("start", help="start what is not running, deploy prefect.yaml, print the addresses")
    begin.add_argument("--prefect-port", type=int, default=4200)
    begin.add_argument("--mlflow-port", type=int, default=5000)
    begin.add_argument("--workers", type=int, default=1, help="one per GPU; CUDA_VISIBLE_DEVICES names them")
    begin.add_argument(
        "--silence",
        type=int,
        default=SILENCE,
        help="seconds without a heartbeat after which a run has crashed (default 300; the first start sets it)",
    )
    commands.add_parser("stop", help="stop what `start` started here, and nothing else")
    commands.add_parser("deploy", help="pool, deployments and automations for the server at PREFECT_API_URL")
    args = parser.parse_args()
    try:
        if args.command == "start":
            start(args.prefect_port, args.mlflow_port, args.workers, args.silence)
        elif args.command == "stop":
            stop()
        else:
            deploy()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def start(prefect_port: int, mlflow_port: int, workers: int, silence: int = SILENCE) -> None:
    """Start the servers, deploy, start the workers. Raises `InputError` for a port in use and a server that fails."""
    if workers < 1:
        raise InputError(f"WORKERS = {workers}: must be at least 1")
    if silence < 60:
        raise InputError(f"--silence {silence}: must be at least 60 s, heartbeats come every 30")
    FOLDER.mkdir(exist_ok=True)
    prefect = f"http://{HOST}:{prefect_port}"
    os.environ |= QUIET | {
        "PREFECT_API_URL": f"{prefect}/api",
        "PREFECT_HOME": str(FOLDER.absolute() / "prefect"),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port)]
    _serve("prefect", command, prefect_port, "PREFECT_PORT", f"{prefect}/api/health")
    tracking = os.environ.get("MLFLOW_TRACKING_URI")
    if not tracking:
        tracking = f"http://{HOST}:{mlflow_port}"
        store, artifacts = f"sqlite:///{Path('mlflow.db').absolute()}", Path("mlartifacts").absolute().as_uri()
        command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(mlflow_port)]
        command += ["--workers", "1", "--backend-store-uri", store]
        command += ["--default-artifact-root", artifacts, "--no-serve-artifacts"]
        os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        _serve("mlflow", command, mlflow_port, "MLFLOW_PORT", f"{tracking}/health")
        os.environ["MLFLOW_TRACKING_URI"] = tracking
    deploy(workers, silence)
    gpus = [g for g in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if g] or [str(i) for i in range(workers)]
    if len(gpus) < workers:
        raise InputError(f"WORKERS = {workers}: CUDA_VISIBLE_DEVICES names {len(gpus)} GPU: one worker each")
    for i in range(workers):
        name = f"{POOL}-{i}"
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--limit", "1", "--name", name]
        _spawn(name, command, {"CUDA_VISIBLE_DEVICES": gpus[i]})
    _wait_for({f"{POOL}-{i}" for i in range(workers)})
    retry_crashed()
    (FOLDER / "api").write_text(os.environ["PREFECT_API_URL"], encoding="utf-8")
    print(f"Prefect   {prefect}")
    print(f"MLflow    {tracking}")
    print(f"workers   {', '.join(f'{POOL}-{i} (GPU {gpus[i]})' for i in range(workers))}; logs in {FOLDER}/")
    print("a run     python -m flows.start style")
    print(f"prefect's own commands:  export PREFECT_API_URL={prefect}/api")


def stop() -> None:
    """Stop the workers first, so that a run in progress can still report its end; then the servers."""
    files = sorted(FOLDER.glob("*.pid"), key=lambda f: (not f.stem.startswith(POOL), f.stem))
    stopped = []
    for file in files:
        if found := _running(file.stem):
            process.end(found.pid)
            stopped.append(file.stem)
        file.unlink()
    (FOLDER / "api").unlink(missing_ok=True)
    print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def deploy(workers: int | None = None, silence: int = SILENCE) -> None:
    """Create the work pools, prefect.yaml's deployments, and the automations that start a crashed run again.

    Raises `InputError` if the server does not answer or refuses.
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
            for pool in {POOL, COORDINATOR} - existing:
                _prefect("work-pool", "create", pool, "--type", "process")
            if workers:
                client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=workers))
    except httpx.HTTPError as error:
        raise InputError(f"Prefect at {PREFECT_API_URL.value()}: {' '.join(str(error).split())}") from None
    _prefect("deploy", "--all")
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


def _wait_for(workers):
    """Wait until the server knows these workers; a run that starts earlier would warn that there are none."""
    from prefect import get_client

    deadline = time.monotonic() + DEADLINE
    with get_client(sync_client=True) as client:
        while missing := workers - {w.name for w in client.read_workers_for_work_pool(POOL) if w.status == "ONLINE"}:
            if time.monotonic() > deadline or not all(_running(name) for name in workers):
                raise InputError(f"worker {min(missing)} does not start: see {FOLDER / min(missing)}.log")
            time.sleep(0.2)


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


def _serve(name, command, port, knob, health):
    """Start a server unless it runs; wait until it answers."""
    if not _running(name):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                raise InputError(f"{knob} = {port}: the port is in use; choose another: make server {knob}=…") from None
        _spawn(name, command)
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            with urllib.request.urlopen(health, timeout=2):
                return
        except OSError:
            if not _running(name) or time.monotonic() > deadline:
                raise InputError(f"{name} does not answer at {health}: see {FOLDER / name}.log") from None
            time.sleep(0.2)


def _spawn(name, command, env=None):
    """Start a process that outlives this one, unless it runs already."""
    if _running(name):
        return
    here = {"PWD": str(Path.cwd())}  # prefect.yaml asks a worker where it started
    with (FOLDER / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=process.environment() | here | (env or {}),
            start_new_session=True,
        )
    started = {"pid": child.pid, "started": psutil.Process(child.pid).create_time()}
    write_atomically(FOLDER / f"{name}.pid", json.dumps(started).encode())


def _running(name):
    """The process that `_spawn` started, if it still runs and no other has taken its id."""
    try:
        started = read_json(FOLDER / f"{name}.pid")
        found = psutil.Process(started["pid"])
        same = found.create_time() == started["started"] and found.status() != psutil.STATUS_ZOMBIE
        return found if same else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


if __name__ == "__main__":
    sys.exit(main())

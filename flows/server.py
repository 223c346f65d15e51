"""`python -m flows.server start|stop|deploy|ui`: Prefect's server, MLflow and workers on this machine's loopback."""

import argparse
import contextlib
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from aclora.core import startup
from aclora.core.errors import InputError
from aclora.core.failures import one_line
from flows import background
from flows.background import DEADLINE, FOLDER, HOST, QUIET, SECRET
from flows.deployments import POOL, SILENCE, deploy, retry_crashed


def main() -> int:
    """Entry point; the exit status is 1 after a one-line error, 130 after Ctrl-C and 143 after SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.server", description="Prefect's server, MLflow and workers on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    begin = commands.add_parser("start", help="start what is not running, deploy prefect.yaml, print the addresses")
    begin.add_argument("--prefect-port", type=int, help="default 4200, or where it runs already")
    begin.add_argument("--mlflow-port", type=int, help="default 5000, or where it runs already")
    begin.add_argument("--workers", type=int, default=1, help="one per GPU; CUDA_VISIBLE_DEVICES names them")
    begin.add_argument(
        "--silence",
        type=int,
        default=SILENCE,
        help="seconds without a heartbeat after which a run has crashed (default 300; the first start sets it)",
    )
    commands.add_parser("stop", help="stop what `start` started here, and nothing else")
    commands.add_parser("deploy", help="pools, deployments and automations of a team, at PREFECT_API_URL")
    pages = commands.add_parser("ui", help="MLflow's pages of this project's own store, until Ctrl-C")
    pages.add_argument("--port", type=int, default=5000)
    args = parser.parse_args()
    startup.watch_signals(f"flows.server {args.command}")
    startup.unwind()
    try:
        if args.command == "start":
            with background.alone():
                start(args.prefect_port, args.mlflow_port, args.workers, args.silence)
        elif args.command == "stop":
            stop()
        elif args.command == "ui":
            ui(args.port)
        else:
            deploy(team=True)
    except (InputError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    except startup.Interrupted as interrupted:
        startup.say(interrupted.number, "; what it began has ended" if args.command == "start" else "")
        return interrupted.status
    return 0


def start(prefect_port: int | None, mlflow_port: int | None, workers: int, silence: int = SILENCE) -> None:
    """Start the servers, deploy, start the workers; without a port where they run already, or 4200 and 5000.

    Whatever goes wrong, what this call began is ended. Raises `InputError` for bad input, a port in use, and a server
    or worker that fails.
    """
    if workers < 1:
        raise InputError(f"WORKERS = {workers}: must be at least 1")
    if silence < 60:
        raise InputError(f"--silence {silence}: must be at least 60 s, heartbeats come every 30")
    gpus = [g for g in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if g] or [str(i) for i in range(workers)]
    if len(gpus) < workers:
        raise InputError(f"WORKERS = {workers}: CUDA_VISIBLE_DEVICES names {len(gpus)} GPU: one worker each")
    tracking = os.environ.get("MLFLOW_TRACKING_URI")
    prefect_port = background.port_of("prefect", prefect_port, 4200, "PREFECT_PORT")
    own = 0 if tracking else background.port_of("mlflow", mlflow_port, 5000, "MLFLOW_PORT")
    if own == prefect_port:
        raise InputError(f"MLFLOW_PORT = {own}: Prefect has that port; choose another: make server MLFLOW_PORT=…")
    with background.ending_what_began() as begun:
        prefect = _start_prefect(prefect_port, begun)
        tracking = tracking or _start_mlflow(own, begun)
        os.environ["MLFLOW_TRACKING_URI"] = tracking
        deploy(workers, silence)
        for i in range(workers):
            name = f"{POOL}-{i}"
            command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--limit", "1"]
            background.spawn(name, [*command, "--name", name], begun, {"CUDA_VISIBLE_DEVICES": gpus[i]})
        _wait_for({f"{POOL}-{i}" for i in range(workers)})
        retry_crashed()
        (FOLDER / "api").write_text(os.environ["PREFECT_API_URL"], encoding="utf-8")
    print(f"Prefect   {prefect}; its pages ask for the password, `cat {SECRET}` shows it")
    print(f"MLflow    {tracking}")
    print(f"workers   {', '.join(f'{POOL}-{i} (GPU {gpus[i]})' for i in range(workers))}; logs in {FOLDER}/")
    print("a run     python -m flows.start style")
    print(f'prefect\'s own commands:  export PREFECT_API_URL={prefect}/api PREFECT_API_AUTH_STRING="$(cat {SECRET})"')


def _start_prefect(port: int, begun: list[str]) -> str:
    """Prefect's server, and the environment in which its commands and workers find it; its address.

    Whoever reaches its API runs commands on the workers, so it asks for the installation's password, and tells a
    browser that pages of other origins may not ask. Raises `InputError` where one runs that does not.
    """
    address, password = f"http://{HOST}:{port}", background.password()
    os.environ |= QUIET | {
        "PREFECT_API_AUTH_STRING": password,
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": f"{address},http://localhost:{port}",
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_HOME": str(FOLDER.absolute() / "prefect"),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    background.serve("prefect", command, port, f"{address}/api/health", begun)
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{address}/api/admin/version"):
        raise InputError(f"Prefect at {address} asks for no password: `make server-stop`, then `make server`")
    return address


def _start_mlflow(port: int, begun: list[str]) -> str:
    """MLflow's server on the project's own store; its address."""
    address = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", _store(), "--default-artifact-root", Path("mlartifacts").absolute().as_uri()]
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    background.serve("mlflow", [*command, "--no-serve-artifacts"], port, f"{address}/health", begun)
    return address


def stop() -> None:
    """Stop the workers first, so that a run in progress can still report its end; then the servers."""
    if not FOLDER.exists():
        print("nothing was running")
        return
    with background.alone():
        names = sorted((f.stem for f in FOLDER.glob("*.pid")), key=lambda name: (not name.startswith(POOL), name))
        stopped = [name for name in names if background.end(name)]
        (FOLDER / "api").unlink(missing_ok=True)
    print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def ui(port: int) -> None:
    """Become MLflow's pages of the project's own store. Raises `InputError` where the port is in use."""
    background.require_free(port, "MLFLOW_PORT", "ui")
    print(f"http://{HOST}:{port}", flush=True)
    os.environ |= QUIET | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", _store(), "--workers", "1"]
    os.execv(sys.executable, [*command, "--host", HOST, "--port", str(port)])


def _store():
    return f"sqlite:///{Path('mlflow.db').absolute()}"


def _wait_for(workers):
    """Wait until the server knows these workers; a run that starts earlier would warn that there are none."""
    from prefect import get_client

    deadline = time.monotonic() + DEADLINE
    with get_client(sync_client=True) as client:
        while missing := workers - {w.name for w in client.read_workers_for_work_pool(POOL) if w.status == "ONLINE"}:
            dead = [name for name in sorted(workers) if not background.running(name)]
            if dead or time.monotonic() > deadline:
                name = (dead or sorted(missing))[0]
                raise InputError(f"worker {name} does not start: {background.last_line(name)}")
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())

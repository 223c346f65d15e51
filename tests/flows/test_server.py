"""Servers, deployments, schedules, and what becomes of a run when something dies."""

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys

import pytest

from tests.flows import services
from tests.flows.conftest import Site, Toy, at_work, environment, free_port, none_left, until

RAN = dict.fromkeys(["caption@oil", "train-aclora@oil", "evaluate@oil"], "Ran")


def training(site):
    return at_work(site.folder, "train-aclora.py")


@pytest.fixture
def long(site):
    """A training of a minute, with parameters that no other test uses."""
    site.seed = getattr(site, "seed", 0) + 1
    before = (site.folder / "params.yaml").read_text()
    site.project.edit("params.yaml", "epochs: 2\n  seed: 0", f"epochs: 3000\n  seed: {site.seed}")
    yield site
    (site.folder / "params.yaml").write_text(before)


def test_pools_flows_schedules_and_automations_are_deployed(site):
    assert f"Prefect   http://127.0.0.1:{site.port}" in site.output
    found = {d["name"]: d for d in site.get("deployments/filter")}
    assert set(found) == {"style", "retrain", "sweep"}  # `team` has no worker here, and would be shown as not ready
    assert [pool["name"] for pool in site.get("work_pools/filter")] == ["gpu"]
    for deployment in found.values():
        assert deployment["work_pool_name"] == "gpu"
        assert deployment["description"]
        assert str(site.folder) not in str(deployment["pull_steps"])  # each worker has its own clone
    assert [s["active"] for s in found["retrain"]["schedules"]] == [False]
    assert found["retrain"]["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    pool = site.get("work_pools/gpu")
    assert (pool["type"], pool["concurrency_limit"]) == ("process", 1)
    assert {a["name"] for a in site.get("automations/filter")} == {"restart a crashed run", "crash a silent run"}


@pytest.mark.slow
def test_a_teams_deployment_is_made_where_it_is_asked_for(site):
    asked = site.project.run("python", "-m", "flows.start", "team", check=False)
    assert asked.stderr.endswith(": `python -m flows.server deploy` deploys it\n")
    site.project.run("python", "-m", "flows.server", "deploy", env=site.access)
    for _ in range(2):
        found = {d["name"]: d for d in site.get("deployments/filter")}
        assert set(found) == {"style", "retrain", "sweep", "team"}
        assert found["team"]["work_pool_name"] == "coordinator"
        assert [s["active"] for s in found["team"]["schedules"]] == [False]
        site.start()  # leaves it


def test_a_schedule_creates_runs(site):
    """Prefect beside a newer SQLAlchemy accepts schedules and does nothing."""
    deployment = next(d for d in site.get("deployments/filter") if d["name"] == "style")
    schedule = {"schedule": {"interval": 3600}, "active": True}
    made = site.ask("POST", f"deployments/{deployment['id']}/schedules", [schedule]).json()[0]
    try:

        def scheduled():
            runs = site.get("flow_runs/filter", flow_runs={"deployment_id": {"any_": [deployment["id"]]}})
            return [run for run in runs if run["auto_scheduled"]]

        assert until(scheduled, 90, "a scheduled run")[0]["state"]["type"] == "SCHEDULED"
    finally:
        site.ask("DELETE", f"deployments/{deployment['id']}/schedules/{made['id']}")


@pytest.mark.slow
def test_a_worker_runs_it_and_a_second_start_changes_nothing(site):
    pids = {name: site.pid(name) for name in ("prefect", "gpu-0")}
    site.start()
    assert {name: site.pid(name) for name in ("prefect", "gpu-0")} == pids
    assert [w["status"] for w in site.get("work_pools/gpu/workers/filter")] == ["ONLINE"]
    first, second = (site.launch("style", 'styles=["oil"]') for _ in range(2))
    assert site.ended(first)["type"] == site.ended(second)["type"] == "COMPLETED"
    assert site.tasks(first) == RAN
    assert set(site.tasks(second).values()) == {"Unchanged"}


@pytest.mark.slow
def test_a_killed_worker_leaves_nothing_behind_and_the_run_is_started_again(long):
    run = long.launch("style", 'styles=["oil"]')
    until(lambda: training(long), 120, "the training")
    os.kill(long.pid("gpu-0"), signal.SIGKILL)
    none_left(long.folder, "train-aclora.py", "dvc")

    def states():
        return [s["name"] for s in long.get(f"flow_run_states/?flow_run_id={run}")]

    until(lambda: states()[-2:] == ["Crashed", "AwaitingRetry"], 120, "another start")
    long.project.edit("params.yaml", "epochs: 3000", "epochs: 3")
    long.start()
    assert long.ended(run)["type"] == "COMPLETED"
    assert long.tasks(run)["train-aclora@oil"] == "Ran"


@pytest.mark.slow
def test_a_cancelled_run_ends_within_fifteen_seconds(long):
    run = long.launch("style", 'styles=["oil"]')
    until(lambda: training(long), 120, "the training")
    done = long.project.run("prefect", "flow-run", "cancel", run, env=long.access)
    assert "scheduled for" in done.stdout
    none_left(long.folder, "train-aclora.py", "dvc")
    assert long.ended(run)["type"] == "CANCELLED"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["style", 'styles=["oill"]'], "error: style 'oill' is unknown; did you mean 'oil'? there are: oil, ink"),
        (["style", 'stiles=["oil"]'], "error: style has no parameter 'stiles'; did you mean 'styles'?"),
        (["style", "styles=oil"], "error: 'styles=oil': must be PARAMETER=JSON"),
        (["stile"], "error: flow 'stile' is unknown; did you mean 'style'? there are: style, retrain, sweep"),
    ],
)
def test_bad_input_starts_nothing(site, arguments, message):
    done = site.project.run("python", "-m", "flows.start", *arguments, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(message)


def test_without_a_server(toy):
    done = toy.run("python", "-m", "flows.start", "style", check=False)
    assert done.stderr == "error: no Prefect server is known: `make server` here, or set PREFECT_API_URL\n"
    done = toy.run(
        "python", "-m", "flows.start", "style", check=False, env={"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    )
    assert done.stderr.startswith("error: Prefect at http://127.0.0.1:9/api does not answer")
    assert toy.run("python", "-m", "flows.server", "stop").stdout == "nothing was running\n"


@pytest.fixture
def taken():
    """A port on which somebody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def start(toy, *arguments, **env):
    return toy.run("python", "-m", "flows.server", "start", *arguments, check=False, env=env)


def test_a_port_in_use_starts_nothing(toy, taken):
    for server in ("prefect", "mlflow"):
        ports = {"prefect": free_port(), "mlflow": free_port()} | {server: taken}
        done = start(toy, *(f"--{name}-port={port}" for name, port in ports.items()))
        knob = f"{server.upper()}_PORT"
        assert done.stderr == f"error: {knob} = {taken}: the port is in use; choose another: make server {knob}=…\n"
        assert not list((toy.folder / ".server").glob("*.pid"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prefect-port=70000"], "PREFECT_PORT = 70000: must be a port, 1 … 65535"),
        (["--prefect-port=45123", "--mlflow-port=45123"], "MLFLOW_PORT = 45123: Prefect has that port"),
        (["--workers=0"], "WORKERS = 0: must be at least 1"),
        (["--silence=5"], "--silence 5: must be at least 60 s"),
    ],
)
def test_a_bad_setting_starts_nothing(toy, arguments, message):
    done = start(toy, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"error: {message}")
    assert not list((toy.folder / ".server").glob("*.pid"))


def test_a_file_where_the_folder_should_be(toy):
    (toy.folder / ".server").touch()
    done = start(toy)
    assert done.stderr.startswith("error: .server: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_start_that_fails_ends_what_it_began_and_the_next_starts_at_once(tmp_path):
    """Prefect runs, then a deployment is refused; then Ctrl-C; then it starts, and says where it runs already."""
    toy = Toy(tmp_path / "toy")
    good = (toy.folder / "prefect.yaml").read_text()
    (toy.folder / "prefect.yaml").write_text(good.replace("flows/style.py:style", "flows/nowhere.py:style"))
    ports = [f"--prefect-port={free_port()}", f"--mlflow-port={free_port()}"]
    tracking = {"MLFLOW_TRACKING_URI": "sqlite:///nowhere.db"}
    done = start(toy, *ports, **tracking)
    assert done.returncode == 1
    assert done.stderr.startswith("error: prefect deploy ")
    assert done.stderr.count("\n") == 1
    assert not at_work(toy.folder, "prefect")
    assert not list((toy.folder / ".server").glob("*.pid"))

    (toy.folder / "prefect.yaml").write_text(good)
    command = [sys.executable, "-m", "flows.server", "start", *ports]
    with subprocess.Popen(command, cwd=toy.folder, env=environment() | tracking, stderr=subprocess.PIPE) as begun:
        until(lambda: (toy.folder / ".server/prefect.pid").exists(), 60, "Prefect begins")
        second = start(toy, *ports, **tracking)
        begun.send_signal(signal.SIGINT)
        said = begun.communicate(timeout=60)[1].decode()
    assert second.stderr.startswith("error: another `make server` or `make server-stop` is at work here")
    assert (begun.returncode, said) == (
        130,
        "interrupted: flows.server start; what it began has ended; run again to go on\n",
    )
    assert not at_work(toy.folder, "prefect")

    site = Site(toy)
    try:
        again = start(toy, f"--prefect-port={free_port()}", **tracking)
        assert again.stderr == (
            f"error: {again.stderr.split()[1]} = {again.stderr.split()[3]} prefect runs on port {site.port} already; "
            "make server-stop stops it\n"
        )
        assert f"Prefect   http://127.0.0.1:{site.port};" in start(toy, **tracking).stdout
    finally:
        site.stop()
    assert not at_work(toy.folder, "prefect")


def test_a_server_that_dies_says_why(toy):
    """MLflow does not know the version of its store; Prefect, which this start began, ends too."""
    with contextlib.closing(sqlite3.connect(toy.folder / "mlflow.db")) as store:
        store.execute("CREATE TABLE alembic_version (version_num)")
        store.execute("INSERT INTO alembic_version VALUES ('of a later release')")
        store.commit()
    done = start(toy, f"--prefect-port={free_port()}", f"--mlflow-port={free_port()}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: mlflow does not answer at http://127.0.0.1:")
    assert "of a later release" in done.stderr
    assert "(.server/mlflow.log has more)" in done.stderr
    assert not at_work(toy.folder, "prefect")
    assert not at_work(toy.folder, "mlflow")


def test_a_forgotten_process_file_is_no_server(toy):
    (toy.folder / ".server").mkdir()
    for name, content in {"prefect": "", "mlflow": "{}", "gpu-0": '{"pid": 1, "started": 0}'}.items():
        (toy.folder / ".server" / f"{name}.pid").write_text(content)
    assert toy.run("python", "-m", "flows.server", "stop").stdout == "nothing was running\n"
    assert not list((toy.folder / ".server").glob("*.pid"))


def test_mlflows_pages_on_a_port_of_ones_choice_for_this_machines_pages_alone(toy, taken):
    import httpx

    done = toy.run("python", "-m", "flows.server", "ui", f"--port={taken}", check=False)
    assert done.stderr == f"error: MLFLOW_PORT = {taken}: the port is in use; choose another: make ui MLFLOW_PORT=…\n"
    port = free_port()
    with services.running(
        sys.executable, "-m", "flows.server", "ui", f"--port={port}", log=toy.folder / "log", cwd=toy.folder,
        env=environment(),
    ):  # fmt: skip
        until(services.answers(f"http://127.0.0.1:{port}/health"), 120, "MLflow answers")

        def search(**headers):
            address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search"
            return httpx.post(address, json={"max_results": 1}, headers=headers, timeout=30).status_code

        assert search() == 200
        assert search(Host="evil.example") == 403  # a foreign name that points at this machine
        assert search(Origin="http://evil.example") == 403
    assert (toy.folder / "log").read_text().startswith(f"http://127.0.0.1:{port}\n")


@pytest.mark.slow
def test_a_site_of_two_workers_from_start_to_stop(tmp_path):
    """MLflow too; the same style twice at once; a pool without workers; the server killed while a run goes on."""
    import httpx

    site = Site(Toy(tmp_path / "toy"), workers=2, mlflow=True)
    try:
        mlflow = next(line.split()[1] for line in site.output.splitlines() if line.startswith("MLflow"))
        assert httpx.get(f"{mlflow}/health").text == "OK"
        gpus = [dict(p.environ())["CUDA_VISIBLE_DEVICES"] for p in at_work(site.folder, "prefect worker start")]
        assert sorted(gpus) == ["0", "1"]

        site.project.edit("params.yaml", "epochs: 2", "epochs: 400")
        first, second = (site.launch("style", 'styles=["oil"]') for _ in range(2))
        until(lambda: [site.state(run)["type"] for run in (first, second)] == ["RUNNING"] * 2, 120, "both at work")
        ends = [site.ended(run) for run in (first, second)]
        assert [end["type"] for end in ends] == ["COMPLETED"] * 2
        outcomes = sorted(site.tasks(run)["train-aclora@oil"] for run in (first, second))
        assert outcomes == ["Ran", "Unchanged"]

        site.project.edit("params.yaml", "epochs: 400", "epochs: 3000")  # longer than a server takes to come back
        run = site.launch("style", 'styles=["oil"]')
        until(lambda: training(site), 120, "the training")
        os.kill(site.pid("prefect"), signal.SIGKILL)
        until(lambda: not at_work(site.folder, "prefect server start"), 10, "no server")
        site.start()
        assert training(site)
        assert site.ended(run)["type"] == "COMPLETED"

        for worker in ("gpu-0", "gpu-1"):
            os.kill(site.pid(worker), signal.SIGKILL)  # asked to end, one may wait a minute for a server that was away
        until(lambda: not at_work(site.folder, "prefect worker start"), 30, "no worker")
        until(
            lambda: "the run waits until one does" in site.project.run("python", "-m", "flows.start", "style").stdout,
            120,
            "a warning that the run will wait",
        )
    finally:
        output = site.stop()
    assert "prefect" in output
    assert not at_work(site.folder, "-m")

"""deploy/: the servers of the compose file, its commands and settings, on a real Postgres."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.flows import services
from tests.flows.conftest import environment, free_port, until
from tests.flows.test_deploy_files import DEPLOY, compose

SECRETS = {
    "PREFECT_DB_PASSWORD": "prefects",
    "MLFLOW_DB_PASSWORD": "mlflows",
    "PREFECT_DOMAIN": "prefect.example.org",
    "PREFECT_USER_AND_PASSWORD": "team:opensesame",
    "S3_MLFLOW_KEY": "mlflow",
    "S3_MLFLOW_SECRET": "opensesame",
}


@contextlib.contextmanager
def served(name: str, database: services.Postgres, folder: Path) -> Iterator[str]:
    """A service of the compose file on this machine, its own command and environment: the address where it answers."""
    port = free_port()
    here = f"127.0.0.1:{port}"  # no proxy: they are asked for by their address
    given = SECRETS | {"MLFLOW_DOMAIN": here, "PREFECT_DOMAIN": here}
    service = compose(**given)["services"][name]
    command = service["command"]
    command[command.index("--host") + 1] = "127.0.0.1"
    command[command.index("--port") + 1] = str(port)
    env = {"PREFECT_HOME": str(folder / "home")} | service["environment"]
    for there, elsewhere in (
        ("@postgres:5432/", f"@127.0.0.1:{database.port}/"),
        ("s3://mlflow", (folder / "s3").as_uri()),
        ("/tmp/", f"{folder}/"),
        ("https://127", "http://127"),
    ):
        env = {key: text if key == "PREFECT_HOME" else text.replace(there, elsewhere) for key, text in env.items()}
    log, address = folder / f"{name}.log", f"http://127.0.0.1:{port}"
    with services.running(*command, log=log, env=environment() | env, cwd=folder):
        health = f"{address}/api/health" if name == "prefect" else f"{address}/health"
        until(services.answers(health), 120, f"{name} answers: {log}")
        yield address


@pytest.fixture
def database():
    with services.postgres() as database:
        for name in ("prefect", "mlflow"):  # made by the compose file's own script
            database.run("dropdb", name)
        passwords = {key: SECRETS[key] for key in ("PREFECT_DB_PASSWORD", "MLFLOW_DB_PASSWORD")}
        database.run("sh", str(DEPLOY / "databases.sh"), **passwords)
        yield database


def test_each_server_has_a_role_that_opens_its_own_database_only(database):
    def ask(role, name, query):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            database.run("psql", "-c", query, name, PGUSER=role, PGPASSWORD=SECRETS[f"{role.upper()}_DB_PASSWORD"])
        return refused.value.stderr

    for role, other in (("prefect", "mlflow"), ("mlflow", "prefect")):
        own = {"PGUSER": role, "PGPASSWORD": SECRETS[f"{role.upper()}_DB_PASSWORD"]}
        database.run("psql", "-c", "create table of_mine (x int); drop table of_mine", role, **own)
        for name in (other, "postgres", "template1"):
            assert "permission denied for database" in ask(role, name, "select 1")
        assert "permission denied to create role" in ask(role, role, "create role evil")
        assert "permission denied to create database" in ask(role, role, "create database evil")
        assert "must be superuser" in ask(role, role, "alter role current_user superuser")
        assert "must be superuser" in ask(role, role, "copy (select 1) to program 'touch /tmp/owned'")
        assert "permission denied" in ask(role, role, "select pg_read_file('/etc/passwd')")
        assert "permission denied" in ask(role, role, "select rolpassword from pg_authid")
        wrong = {"PGUSER": role, "PGPASSWORD": SECRETS[f"{other.upper()}_DB_PASSWORD"]}
        with pytest.raises(subprocess.CalledProcessError):
            database.run("psql", "-c", "select 1", role, **wrong)


@pytest.mark.slow
def test_prefect_on_postgres_asks_for_the_password(tmp_path, database):
    user = tuple(SECRETS["PREFECT_USER_AND_PASSWORD"].split(":"))

    def ask(path, auth=user):
        with httpx.Client(base_url=f"{address}/api", auth=auth, timeout=30) as client:
            token = client.get("/csrf-token", params={"client": "tests"})
            if not token.is_success:
                return token
            headers = {"Prefect-Csrf-Token": token.json()["token"], "Prefect-Csrf-Client": "tests"}
            return client.post(f"/{path}/filter", json={}, headers=headers)

    def prefect(*command, **env):
        here = environment() | {"PREFECT_HOME": str(tmp_path / "client"), "PREFECT_API_URL": f"{address}/api"} | env
        return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=here, capture_output=True, text=True)

    with served("prefect", database, tmp_path) as address:
        assert ask("deployments", auth=None).status_code == 401
        assert ask("deployments", auth=("team", "guess")).status_code == 401
        assert httpx.post(f"{address}/api/deployments/filter", json={}, auth=user).status_code == 403  # no token
        page = httpx.get(address, follow_redirects=True)  # its files are copied to where the container may write
        assert page.is_success
        assert "<title>Prefect" in page.text
        refused = prefect("flows.server", "deploy")
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"error: Prefect at {address}/api: ")
        assert "401" in refused.stderr
        secret = {"PREFECT_API_AUTH_STRING": SECRETS["PREFECT_USER_AND_PASSWORD"]}
        done = prefect("flows.server", "deploy", **secret)
        assert done.returncode == 0, done.stdout + done.stderr
        template = ["--type", "kubernetes", "--base-job-template", str(DEPLOY / "kubernetes.json")]
        done = prefect("prefect", "--no-prompt", "work-pool", "create", "cluster", *template, **secret)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {d["name"] for d in ask("deployments").json()} == {"style", "retrain", "sweep", "team"}
        pools = {p["name"]: p for p in ask("work_pools").json()}
        assert set(pools) == {"gpu", "coordinator", "cluster"}
        assert pools["cluster"]["base_job_template"] == json.loads((DEPLOY / "kubernetes.json").read_text())
    assert not (tmp_path / "home/prefect.db").exists()
    assert "flow_run" in database.run("psql", "-c", "\\dt", "prefect").stdout


@pytest.mark.slow
def test_mlflow_on_postgres_and_its_backup(tmp_path, database):
    services.needed_module("psycopg2")

    def search(**headers):
        path = "/api/2.0/mlflow/experiments/search"
        return httpx.post(address + path, json={"max_results": 10}, headers=headers, timeout=30)

    def client(script):
        here = environment() | {"MLFLOW_TRACKING_URI": address, "MLFLOW_DISABLE_TELEMETRY": "true"}
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=here, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with served("mlflow", database, tmp_path) as address:
        assert search(Origin=address.replace("http", "https")).is_success
        assert search(Origin="https://elsewhere.example.org").status_code == 403
        assert search(Host="elsewhere.example.org").status_code == 403
        client(LOG)
        assert client(READ) == "0.1 an adapter\n"

        # the guide's backup, and its way back
        database.run("pg_dump", "--format=custom", f"--file={tmp_path / 'mlflow.dump'}", "mlflow")
        client("import mlflow; mlflow.delete_experiment(mlflow.get_experiment_by_name('aclora').experiment_id)")
    database.run("pg_restore", "--clean", "--if-exists", "--dbname=mlflow", str(tmp_path / "mlflow.dump"))
    with served("mlflow", database, tmp_path) as address:
        assert client(READ) == "0.1 an adapter\n"


LOG = """
import mlflow
mlflow.set_experiment("aclora")
with mlflow.start_run(run_name="oil"):
    mlflow.log_metric("kid", 0.1)
    mlflow.log_text("an adapter", "adapter.txt")
"""
READ = """
import mlflow
run = mlflow.search_runs(experiment_names=["aclora"]).iloc[0]
print(run["metrics.kid"], mlflow.artifacts.load_text(run["artifact_uri"] + "/adapter.txt"))
"""

"""deploy/: what the compose file and the guide say exists, and its servers run on a real Postgres."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.conftest import ROOT, locked
from tests.flows import services
from tests.flows.conftest import environment, free_port, until

DEPLOY = ROOT / "deploy"
SECRETS = {
    "POSTGRES_PASSWORD": services.PASSWORD,
    "PREFECT_DOMAIN": "prefect.example.org",
    "PREFECT_USER_AND_PASSWORD": "team:opensesame",
    "S3_USER": "team",
    "S3_PASSWORD": "opensesame",
}


def compose(**values) -> dict:
    """The services of the compose file, its variables replaced."""

    def value(match):
        return values.get(match[1], f"<{match[1]}>")

    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(re.sub(r"\$\{(\w+)(?::\?[^}]*)?\}", value, text))


def test_every_variable_is_in_the_example_and_fails_when_unset():
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    example = set(re.findall(r"^(\w+)=", (DEPLOY / "env.example").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"\$\{(\w+)", text)) == example
    assert set(re.findall(r"\$\{(\w+):\?", text)) == example
    assert set(re.findall(r"\{\$(\w+)\}", (DEPLOY / "Caddyfile").read_text())) == set(
        compose()["services"]["proxy"]["environment"]
    )


def test_files_services_and_volumes_exist():
    file = compose()
    for name, service in file["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in file["volumes"] or (DEPLOY / source).is_file(), (name, source)
        assert set(service.get("depends_on", ())) <= set(file["services"])
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    ports = {"prefect": "4200", "mlflow": "5000", "s3": "9000"}
    proxied = re.findall(r"reverse_proxy (\w+):(\d+)", (DEPLOY / "Caddyfile").read_text())
    assert dict(proxied) == ports
    for name in ("prefect", "mlflow"):
        command = file["services"][name]["command"]
        assert command[command.index("--port") + 1] == ports[name]


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # mlflow.cli, when imported
def test_every_setting_exists():
    import mlflow.cli
    import mlflow.environment_variables
    import prefect.settings

    known = {option.envvar for option in mlflow.cli.server.params} | set(vars(mlflow.environment_variables))
    for name in ("prefect", "mlflow"):
        for key in compose()["services"][name]["environment"]:
            if key.startswith("PREFECT_"):
                assert hasattr(prefect.settings, key)
            elif key.startswith("MLFLOW_"):
                assert key in known, key
    flags = {flag for option in mlflow.cli.server.params for flag in option.opts}
    assert {word for word in compose()["services"]["mlflow"]["command"] if word.startswith("--")} <= flags


def test_the_guide_names_files_and_settings_that_exist():
    import prefect.settings

    guide = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"deploy/([\w.]+)", guide)) - {".env"}:
        assert (DEPLOY / name).is_file(), name
    for key in set(re.findall(r"\bPREFECT_\w+", guide)) - set(SECRETS):
        assert hasattr(prefect.settings, key)


def test_s3_is_pinned_apart_from_the_lock():
    pinned = {line.split("==")[0] for line in (DEPLOY / "s3.txt").read_text().splitlines() if "==" in line}
    assert {"dvc-s3", "boto3"} <= pinned
    assert not pinned & locked().keys()
    assert {"dvc-ssh", "psycopg2-binary", "asyncpg"} <= locked().keys()


def test_every_variable_of_the_kubernetes_job_is_described():
    template = json.loads((DEPLOY / "kubernetes.json").read_text())
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    assert set(template["variables"]["required"]) <= used


@contextlib.contextmanager
def served(name: str, database: services.Postgres, folder: Path) -> Iterator[str]:
    """A service of the compose file on this machine, its own command and environment: the address where it answers."""
    port = free_port()
    given = SECRETS | {"MLFLOW_DOMAIN": f"127.0.0.1:{port}"}  # no proxy here: it is asked for by its address
    service = compose(**given)["services"][name]
    command = service["command"]
    command[command.index("--host") + 1] = "127.0.0.1"
    command[command.index("--port") + 1] = str(port)
    env = {"PREFECT_HOME": str(folder / "home")} | service["environment"]
    for here in ((f"@127.0.0.1:{database.port}/", "@postgres:5432/"), ((folder / "s3").as_uri(), "s3://mlflow")):
        env = {key: text.replace(here[1], here[0]) for key, text in env.items()}
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
        database.run("psql", "-q", "-f", str(DEPLOY / "databases.sql"))
        yield database


@pytest.mark.slow
def test_prefect_on_postgres_asks_for_the_password(tmp_path, database):
    user = tuple(SECRETS["PREFECT_USER_AND_PASSWORD"].split(":"))

    def ask(path, auth=user):
        return httpx.post(f"{address}/api/{path}/filter", json={}, auth=auth, timeout=30)

    def prefect(*command, **env):
        here = environment() | {"PREFECT_HOME": str(tmp_path / "client"), "PREFECT_API_URL": f"{address}/api"} | env
        return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=here, capture_output=True, text=True)

    with served("prefect", database, tmp_path) as address:
        assert ask("deployments", auth=None).status_code == 401
        assert ask("deployments", auth=("team", "guess")).status_code == 401
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

"""Real services on loopback that end with the test: Postgres, sshd, Prefect's server and workers."""

import contextlib
import getpass
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from aclora.project import process
from tests.flows.conftest import environment, free_port, until
from tests.programs import needed

PASSWORD = "opensesame"


def needed_module(name: str) -> None:
    """Skips without it, and fails where CI must have it, as `needed` does: for a package of the extra `team`."""
    if importlib.util.find_spec(name) is None:
        why = f"{name} is not installed: pip install -c requirements.lock -e '.[team]'"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)


def answers(address: str) -> Callable[[], bool]:
    """Asks whether a server answers there."""

    def ask() -> bool:
        try:
            return httpx.get(address, timeout=5).is_success
        except httpx.HTTPError:
            return False

    return ask


@contextlib.contextmanager
def running(*command: str, log: Path, **more) -> Iterator[subprocess.Popen]:
    """A process that is ended, with all that it started."""
    with log.open("ab") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, **more)
    try:
        yield child
    finally:
        process.end(child.pid)
        child.wait()


class Postgres:
    """A cluster of its own, with the databases `prefect` and `mlflow`."""

    def __init__(self, port: int):
        self.port = port

    def url(self, driver: str, database: str) -> str:
        return f"postgresql+{driver}://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def run(self, program: str, *args: str, **env: str) -> subprocess.CompletedProcess:
        """One of Postgres' client programs, as the superuser unless `env` has another PGUSER."""
        here = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "postgres", "PGPASSWORD": PASSWORD}
        command = [needed(program, package="postgresql"), *args]
        return subprocess.run(command, env=os.environ | here | env, check=True, capture_output=True, text=True)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A fresh Postgres; as root it runs as Debian's user `postgres`."""
    server, initdb = needed("postgres", package="postgresql"), needed("initdb", package="postgresql")
    who = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="aclora-postgres-") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if who:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        args = ["-D", name + "/data", "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={name}/password", "--no-sync"]
        subprocess.run([initdb, *args], check=True, capture_output=True, cwd=name, **who)
        database = Postgres(free_port())
        args = ["-D", name + "/data", "-F", "-p", str(database.port), "-h", "127.0.0.1", "-k", ""]
        with running(server, *args, log=folder / "log", cwd=name, **who):
            until(lambda: ready(database), 60, "Postgres answers")
            for one in ("prefect", "mlflow"):
                database.run("createdb", one)
            yield database


def ready(database: Postgres) -> bool:
    try:
        return database.run("psql", "-c", "select 1").returncode == 0
    except subprocess.CalledProcessError:
        return False


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[tuple[str, str]]:
    """A private sshd that lets in a key of its own: the URL of a folder there, and the key's file."""
    program, port = needed("sshd", package="openssh-server"), free_port()
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # an empty folder that sshd wants of root
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "Subsystem": "sftp internal-sftp",
    }
    (folder / "sshd_config").write_text("".join(f"{k} {v}\n" for k, v in settings.items()))
    with running(program, "-D", "-e", "-f", str(folder / "sshd_config"), log=folder / "sshd.log"):
        yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}{folder}/shared", str(folder / "user")


class Prefect:
    """A Prefect server on Postgres, which takes what several workers write at once, and workers in any folder."""

    def __init__(self, folder: Path, database: Postgres, stack: contextlib.ExitStack):
        self.folder, self.stack, self.port = folder, stack, free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        url = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url("asyncpg", "prefect")}
        command = ["server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        self.start("server", folder, *command, env=url)
        until(answers(f"{self.api}/health"), 120, f"Prefect's server answers: {folder / 'server.log'}")

    def env(self, name: str) -> dict[str, str]:
        """What a process of that name sees: this server, a Prefect home of its own."""
        return {"PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.folder / f"home-{name}")}

    def start(self, name: str, cwd: Path, *command: str, env: dict | None = None) -> None:
        """Start a prefect command as from a shell in a folder."""
        here = self.env(name) | {"PWD": str(cwd), "PREFECT_WORKER_QUERY_SECONDS": "1"} | (env or {})
        child = running("prefect", *command, log=self.folder / f"{name}.log", cwd=cwd, env=environment() | here)
        self.stack.enter_context(child)

    def ask(self, path: str, **body) -> list[dict]:
        """Ask Prefect's REST API."""
        answer = httpx.post(f"{self.api}/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

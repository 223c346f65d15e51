"""A toy pipeline with the shape of ours, in a real repository of git and DVC; a real Prefect server with a worker."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT

os.environ |= {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "ACLORA_TRACKING": "off",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
}

STYLES = """\
styles:
  oil: {pictures: pictures/oil, trigger: zxq style, reference: pictures/oil}
  ink: {pictures: pictures/ink, trigger: vqj style, reference: pictures/ink}
train:
  epochs: 2
  seed: 0
evaluate:
  figures: []
"""
STAGE = """\
  {name}:
    foreach: ${{styles}}
    do:
      cmd: python {name}.py ${{key}}
      deps: [{name}.py, {dep}]
      {rest}
"""
KEPT = """\
metrics: [{'metrics/${key}/scores.json': {cache: false}}]
      outs: [{'metrics/${key}/pages': {cache: false}}]"""
PIPELINE = "stages:\n" + "".join(
    STAGE.format(name=name, dep=dep, rest=rest)
    for name, dep, rest in (
        ("caption", "'${item.pictures}'", "outs: ['captions/${key}.txt']"),
        ("train-aclora", "'captions/${key}.txt'", "params: [train]\n      outs: ['adapters/${key}']"),
        ("evaluate", "'adapters/${key}'", KEPT),
    )
)
SCRIPT = """\
import json, sys, time
from pathlib import Path
import yaml
from aclora.core.stage import run

def main(style):
    {body}

run(main, "a toy")
"""
BODIES = {
    "caption": """
    from aclora.core.errors import InputError
    names = sorted(f.name for f in Path("pictures", style).iterdir())
    if "bad.png" in names:
        raise InputError(f"pictures/{style}/bad.png is no picture: remove it")
    Path("captions").mkdir(exist_ok=True)
    Path("captions", style + ".txt").write_text(" ".join(names))
    print("captions of", style)
""",
    "train-aclora": """
    from aclora.project.fingerprint import train_fingerprint
    train = yaml.safe_load(Path("params.yaml").read_text())["train"]
    folder = Path(".cache/training", train_fingerprint(style))
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(1, train["epochs"] + 1):
        time.sleep(0.02)
        with (folder / "history.jsonl").open("a") as file:
            print(json.dumps({"event": "epoch", "epoch": epoch, "loss": 1 / epoch}), file=file)
    out = Path("adapters", style)
    out.mkdir(parents=True)
    (out / "weights").write_text(json.dumps(train | {"of": Path("captions", style + ".txt").read_text()}))
""",
    "evaluate": """
    train = json.loads(Path("adapters", style, "weights").read_text())
    Path("metrics", style).mkdir(parents=True, exist_ok=True)
    Path("metrics", style, "scores.json").write_text(json.dumps({"kid": 1 / (1 + train["epochs"] + train["seed"])}))
    Path("metrics", style, "pages").mkdir()
    Path("metrics", style, "pages", "1.txt").write_text(style)
""",
}


class Toy:
    """A project of two styles whose stages take no time; commands run in it as a user runs them."""

    def __init__(self, folder: Path):
        self.folder = folder
        for style in ("oil", "ink"):
            (folder / "pictures" / style).mkdir(parents=True)
            (folder / "pictures" / style / "1.png").write_text(style)
        for name, body in BODIES.items():
            (folder / f"{name}.py").write_text(SCRIPT.replace("{body}", body.strip()))
        (folder / "params.yaml").write_text(STYLES)
        (folder / "dvc.yaml").write_text(PIPELINE)
        (folder / ".dvc").mkdir()
        for file in (".dvc/config", ".dvc/.gitignore", ".gitignore", ".dvcignore", "prefect.yaml"):
            shutil.copy(ROOT / file, folder / file)
        shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        self.run("git", "init", "-q", "-b", "main")
        self.run("git", "config", "user.email", "t@t")
        self.run("git", "config", "user.name", "t")
        self.commit()

    def run(self, *command: str, env: dict | None = None, check: bool = True) -> subprocess.CompletedProcess:
        """Run a command there, this environment's Python first on the path."""
        if command[0] == "python":
            command = (sys.executable, *command[1:])
        done = subprocess.run(
            command, cwd=self.folder, env=environment() | (env or {}), capture_output=True, text=True, timeout=300
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def commit(self) -> None:
        """Commit all there is."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", "change")

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that must be there."""
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def environment() -> dict[str, str]:
    """What commands see: our code, and no DVC remote or Prefect profile of the user's."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(true: Callable, seconds: float, what: str):
    """What `true()` returns as soon as that is something; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        time.sleep(0.1)
    return found


def at_work(folder: Path, *words: str) -> list[psutil.Process]:
    """Processes in the folder whose command holds all the words."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            if process.cwd() == str(folder) and process.pid != os.getpid() and all(w in command for w in words):
                found.append(process)
        except psutil.Error:
            continue
    return found


def none_left(folder: Path, *words: str, seconds: float = 15) -> None:
    """Wait until no process in the folder has one of the words in its command; shows those that stay."""

    def left():
        return {p.pid: p for word in words for p in at_work(folder, word)}.values()

    deadline = time.monotonic() + seconds
    while found := left():
        assert time.monotonic() < deadline, f"after {seconds} s: {[p.as_dict(['cmdline', 'status']) for p in found]}"
        time.sleep(0.1)


class Site:
    """What `python -m flows.server start` started in a project's folder."""

    def __init__(self, project, *arguments: str, workers: int = 1, mlflow: bool = False):
        self.project, self.folder = project, project.folder
        self.port = free_port()
        self.arguments = [f"--prefect-port={self.port}", f"--mlflow-port={free_port()}", f"--workers={workers}"]
        self.arguments += arguments
        self.env = {} if mlflow else {"MLFLOW_TRACKING_URI": "sqlite:///nowhere.db"}
        self.output = self.start()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def start(self) -> str:
        """Start what is not running."""
        done = self.project.run("python", "-m", "flows.server", "start", *self.arguments, env=dict(self.env))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> str:
        return self.project.run("python", "-m", "flows.server", "stop").stdout

    def pid(self, name: str) -> int:
        """The process of a server or worker."""
        return json.loads((self.folder / ".server" / f"{name}.pid").read_text())["pid"]

    def launch(self, flow: str, *parameters: str) -> str:
        """Start a run as a user does; its id."""
        output = self.project.run("python", "-m", "flows.start", flow, *parameters).stdout
        return output.split("/runs/flow-run/")[1].split()[0]

    @property
    def password(self) -> str:
        return (self.folder / ".server/secret").read_text()

    @property
    def access(self) -> dict[str, str]:
        """The environment in which Prefect's own commands may ask it."""
        return {"PREFECT_API_URL": self.api, "PREFECT_API_AUTH_STRING": self.password}

    def ask(self, method: str, path: str, body: object = None):
        """Ask Prefect's REST API with the password, and with the token that it wants for a change."""
        import httpx

        with httpx.Client(base_url=self.api, auth=tuple(self.password.split(":")), timeout=30) as client:
            token = client.get("/csrf-token", params={"client": "tests"}).json()["token"]
            headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "tests"}
            answer = client.request(method, f"/{path}", json=body, headers=headers)
        answer.raise_for_status()
        return answer

    def get(self, path: str, **body) -> dict | list:
        """What Prefect's REST API answers."""
        return self.ask("POST" if path.endswith("filter") else "GET", path, body or None).json()

    def state(self, run: str) -> dict:
        """A flow run's state."""
        return self.get(f"flow_runs/{run}")["state"]

    def ended(self, run: str, seconds: float = 300) -> dict:
        """Wait for a flow run's last state."""
        ends = ("COMPLETED", "FAILED", "CANCELLED")
        until(lambda: self.state(run)["type"] in ends, seconds, f"the run's end, but {self.state(run)}")
        return self.state(run)

    def log(self, run: str) -> str:
        """A flow run's state and the last lines of its log: what a failed assertion shows."""
        lines = self.get("logs/filter", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_DESC", limit=40)
        return "\n".join([str(self.state(run)), *(line["message"] for line in reversed(lines))])

    def tasks(self, run: str) -> dict[str, str]:
        """The outcome of every stage of a run by the stage's name; where it was started again, of the last start."""
        found = self.get("task_runs/filter", flow_runs={"id": {"any_": [run]}}, sort="EXPECTED_START_TIME_ASC")
        return {t["name"]: t["state"]["name"] for t in found if "@" in t["name"]}


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A toy with Prefect's server and one worker."""
    site = Site(Toy(tmp_path_factory.mktemp("site") / "toy"))
    yield site
    site.stop()


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Toy:
    """A toy of one's own, the current folder."""
    toy = Toy(tmp_path / "toy")
    monkeypatch.chdir(toy.folder)
    return toy


@pytest.fixture
def prefect(site):
    """Flows called in this process report to the site's server."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_HOME, temporary_settings

    home = site.folder / ".server/prefect"
    with temporary_settings({PREFECT_API_URL: site.api, PREFECT_API_AUTH_STRING: site.password, PREFECT_HOME: home}):
        yield site

"""Servers and workers that outlive the command that starts them; in .server/ their process, port and log."""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

from aclora.core.errors import InputError, require
from aclora.core.files import read_json, write_atomically
from aclora.project import process

HOST = "127.0.0.1"
FOLDER = Path(".server")
SECRET = FOLDER / "secret"
DEADLINE = 120.0  # seconds for a server to answer
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One command at a time starts or stops servers from this folder. Raises `InputError` for the second."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    FOLDER.chmod(0o700)  # logs, Prefect's database and the password are nobody else's
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError("another `make server` or `make server-stop` is at work here: wait for it") from None
        yield


def password() -> str:
    """The user and password that this installation's Prefect asks for, made at the first start: `SECRET` holds them."""
    if not SECRET.exists():
        part = SECRET.with_name(f".{SECRET.name}.{os.getpid()}.part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(f"aclora:{secrets.token_urlsafe(24)}")
        part.replace(SECRET)
    return SECRET.read_text(encoding="utf-8").strip()


def of_this_folder() -> dict[str, str]:
    """The environment by which Prefect's clients find the server that was started here; empty without one."""
    if not (FOLDER / "api").exists():
        return {}
    found = {"PREFECT_API_URL": (FOLDER / "api").read_text(encoding="utf-8")}
    return found | ({"PREFECT_API_AUTH_STRING": password()} if SECRET.exists() else {})


@contextlib.contextmanager
def ending_what_began() -> Iterator[list[str]]:
    """Yield the list to which `spawn` adds; an exception that leaves the block ends those, the last first."""
    begun = []
    try:
        yield begun
    except BaseException:
        for name in reversed(begun):
            end(name)
        raise


def port_of(name: str, asked: int | None, usual: int, knob: str) -> int:
    """The port to use: the one asked for, else the one where the server runs already, else the usual one.

    Raises `InputError` where the port is in use, where the server runs on another, and for what is no port.
    """
    if running(name):
        runs = read_json(FOLDER / f"{name}.pid").get("port", asked or usual)
        if asked not in (None, runs):
            raise InputError(f"{knob} = {asked}: {name} runs on port {runs} already; make server-stop stops it")
        return runs
    port = asked or usual
    require_free(port, knob, "server")
    return port


def require_free(port: int, knob: str, target: str) -> None:
    """Raise `InputError` unless a server can listen on the port; `target` is what make is asked for."""
    require(0 < port < 65536, knob, port, "a port, 1 … 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            why = "the port is in use" if error.errno == errno.EADDRINUSE else (error.strerror or "").lower()
            raise InputError(f"{knob} = {port}: {why}; choose another: make {target} {knob}=…") from None


def serve(name: str, command: list[str], port: int, health: str, begun: list[str]) -> None:
    """Start a server unless it runs; wait until it answers. Raises `InputError` with the last line of its log."""
    spawn(name, command, begun, port=port)
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            with urllib.request.urlopen(health, timeout=2):
                return
        except OSError:
            if not running(name) or time.monotonic() > deadline:
                raise InputError(f"{name} does not answer at {health}: {last_line(name)}") from None
            time.sleep(0.2)


def spawn(name: str, command: list[str], begun: list[str], env: dict | None = None, port: int | None = None) -> None:
    """Start a process that outlives this one, unless it runs already; its name goes to `begun`."""
    if running(name):
        return
    here = {"PWD": str(Path.cwd())}  # prefect.yaml asks a worker where it started
    with (FOLDER / f"{name}.log").open("ab") as log:
        begun.append(name)
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=process.environment() | here | (env or {}),
            start_new_session=True,
        )
    started = {"pid": child.pid, "started": psutil.Process(child.pid).create_time()}
    try:
        write_atomically(FOLDER / f"{name}.pid", json.dumps(started | ({"port": port} if port else {})).encode())
    except BaseException:
        process.end(child.pid)  # nobody would find it
        raise


def running(name: str) -> psutil.Process | None:
    """The process that `spawn` started, if it still runs and no other has taken its id."""
    try:
        started = read_json(FOLDER / f"{name}.pid")
        found = psutil.Process(started["pid"])
        same = found.create_time() == started["started"] and found.status() != psutil.STATUS_ZOMBIE
        return found if same else None
    except (FileNotFoundError, ValueError, TypeError, KeyError, psutil.Error):
        return None


def end(name: str) -> bool:
    """End a process with all that it started, and forget it; whether it ran."""
    if found := running(name):
        process.end(found.pid)
    (FOLDER / f"{name}.pid").unlink(missing_ok=True)
    return found is not None


def last_line(name: str) -> str:
    """The last line that a process logged, and where the others are."""
    file = FOLDER / f"{name}.log"
    with contextlib.suppress(OSError):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if said := [line.strip() for line in lines if line.strip()]:
            return f"{said[-1][:300]} ({file} has more)"
    return f"{file} is empty"

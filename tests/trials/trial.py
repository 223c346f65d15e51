"""Running a case: the command in a child forked from a process that has imported what commands import."""

import contextlib
import importlib
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.pipeline.conftest import BYTE_CODE, ROOT
from tests.trials.case import Answered, Case, Result, faults
from tests.trials.tree import ADAPTER, STYLE, TOUCHED, copied, left_over, outs

# Seconds on idle cores after which a command hangs, by how it begins.
LIMITS = {("aclora", "check"): 20.0, ("dvc",): 60.0, ("aclora", "run"): 60.0}
LIMIT = 30.0  # of all others
IDLE = 6.0  # seconds of the small training on one idle core
MEMORY = 12 * 2**30  # bytes of address space: what takes more ends in an error, not in the machine's
# Modules of the project itself are imported in the child, from its own copy.
OWN = ("stages", "miniature", "flows", "tests", "__main__", "bench", "docs")


def environment(folder: Path) -> dict[str, str]:
    """What a user's shell gives a command, with this Python first on the path and nothing that leaves the machine."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    plain = {"PATH": path, "PYTHONPATH": str(folder / "src"), "HF_HUB_OFFLINE": "1", "ACLORA_TRACKING": "off"}
    quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "200", "NO_COLOR": "1"}
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    return os.environ | plain | BYTE_CODE | quiet | store


def run(case: Case, finished: Path, work: Path) -> Result:
    """Try one case in a fresh copy of the finished project at `work`."""
    tree = copied(finished, work)
    case.spoil(tree)
    before, parts = outs(work), left_over(work)
    start = time.monotonic()
    limit = pace() * next((s for start, s in LIMITS.items() if case.command[: len(start)] == start), LIMIT)
    answered = (spawned if case.command[0] == "dvc" else forked)(case.command, work, limit)
    found = faults(case, answered, limit)
    # a stage that could do its work has written its own outs
    after = before if case.command[0].startswith("stages.") and answered.status == 0 else outs(work)
    lost = [name for name in before if name not in after]
    changed = [name for name in before if name in after and before[name] != after[name]]
    if lost or changed:
        what = [f"{len(lost)} removed"] * bool(lost) + [f"{len(changed)} changed"] * bool(changed)
        found.append(f"outs lost: {', '.join(what)}, {(lost + changed)[0]} for one")
    if new := [part for part in left_over(work) if part not in parts]:
        found.append(f"left half-written: {new[0]}")
    if any(work.parent.rglob(TOUCHED)):
        found.append("an injected command was executed")
        for file in work.parent.rglob(TOUCHED):
            file.unlink()
    output = f"{answered.out}\n{answered.err}"
    if not found and case.also and (more := case.also(tree, output)):
        found.append(more)
    return Result("", case.name, found, output.strip(), time.monotonic() - start)


def forked(command: tuple[str, ...], folder: Path, limit: float) -> Answered:
    """Run `aclora …` or `stages.<name> STYLE` in a forked child."""
    out, err = (folder.with_name(f"{folder.name}.{name}") for name in ("out", "err"))
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _run_in_child(command, folder, out, err)
    status = None
    while time.monotonic() - start < limit:
        pid, raw = os.waitpid(child, os.WNOHANG)
        if pid:
            status = os.waitstatus_to_exitcode(raw)
            break
        time.sleep(0.005)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in (out, err)]
    return Answered(status, *texts, time.monotonic() - start)


def _run_in_child(command, folder, out, err):
    """Never returns: the child ends as the command would."""
    status = 70
    try:
        os.setsid()
        for stream, file in ((1, out), (2, err)):
            os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.environ.update(environment(folder))
        os.chdir(folder)
        sys.path[:] = [str(folder), *(p for p in sys.path if p not in ("", str(ROOT), str(ROOT / "src")))]
        for name in [name for name in sys.modules if name.partition(".")[0] in OWN and name != "__main__"]:
            del sys.modules[name]
        status = _exit_status(command)
    except BaseException:  # as the interpreter would print it
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _exit_status(command):
    sys.argv = list(command)
    try:
        if command[0] == "aclora":
            from aclora.cli.main import main

            return main(list(command[1:]))
        runpy.run_module(command[0], run_name="__main__")
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    return 0


def started(folder: Path, command: tuple[str, ...]) -> subprocess.Popen[str]:
    """A program in a session of its own."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
    )


def spawned(command: tuple[str, ...], folder: Path, limit: float) -> Answered:
    """Run a program, its output and its errors together."""
    start = time.monotonic()
    with started(folder, command) as process:
        try:
            output = process.communicate(timeout=limit)[0]
            return Answered(process.returncode, "", output, time.monotonic() - start)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Answered(None, "", "", limit)


def pace() -> float:
    """How much slower than one idle core this machine was when it was measured; at least 1."""
    return float(os.environ.get("TRIALS_PACE", 1))


def measure_pace(finished: Path, work: Path) -> None:
    """Set `pace` by a training, for the processes that are forked later too."""
    copied(finished, work)
    done = spawned((sys.executable, "-m", "stages.train", STYLE), work, 600)
    os.environ["TRIALS_PACE"] = str(max(1.0, done.seconds / IDLE))
    shutil.rmtree(work.parent)


def warm(finished: Path, work: Path) -> list[str]:
    """Import here what the commands import in a child, so that no later child has to; the good project's faults."""
    found, names = [], work.with_name("modules")
    adapter = f"{ADAPTER}/pytorch_lora_weights.safetensors"
    for command in (("aclora", "check"), ("aclora", "inspect", adapter)):
        copied(finished, work).remove(".cache")  # so that it looks at everything again
        child = os.fork()
        if child == 0:
            _note_modules(command, work, names)
        if os.waitpid(child, 0)[1]:
            text = "\n".join(work.with_name(f"warm.{end}").read_text(errors="replace") for end in ("out", "err"))
            found.append(f"{' '.join(command)} fails on the finished project: {text.strip()[-400:]}")
        for name in names.read_text().split():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    shutil.rmtree(work.parent)
    return found


def _note_modules(command, folder, names):
    """Never returns: runs a command and writes down which modules it imported."""
    original = os._exit

    def end(status):
        known = [name for name in list(sys.modules) if name.partition(".")[0] not in OWN]
        names.write_text("\n".join(known))
        original(status)

    os._exit = end
    _run_in_child(command, folder, folder.with_name("warm.out"), folder.with_name("warm.err"))

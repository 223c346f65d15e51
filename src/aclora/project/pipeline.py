"""Running the pipeline: what a killed run left is mended first, and how DVC ended is told truly.

`aclora run` and the flows go through here. A plain `dvc repro` stays valid; it neither mends nor looks twice.
"""

import contextlib
import filecmp
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from aclora.core.errors import InputError
from aclora.core.files import write_atomically
from aclora.project import dvc, git, process

LOCK, KEPT = Path("dvc.lock"), Path(".dvc/tmp/dvc.lock")  # which stages gave which results, and a copy
DAMAGED = Path(".dvc/tmp/dvc.lock.damaged")  # a dvc.lock that could not be read
PART = re.compile(r"\..+\.(\d+)\.part")  # of aclora.core.files.part_of, with the process that writes it
COPY = re.compile(r"\.[\w-]{22}\.tmp")  # a file in DVC's cache until it is whole
REST = 5.0  # seconds since the last byte, after which a copy that no process has open is nobody's
OLD = 3600.0  # the same in a cache outside of the project, which other machines may write to


def prepare(log: Callable[[str], None]) -> None:
    """Mend what killed processes left in the current project; `log` is told of each thing in one line.

    That is DVC's table of locks, half a dvc.lock, what stages half wrote beside their outs, what DVC half copied into
    its cache, and outs that stand in the work tree and did not reach the cache, because the disk was full. Work of
    processes that live is left alone. Raises `InputError` outside of a DVC project and for a dvc.lock that git merges.
    """
    if not Path(".dvc").is_dir():
        raise InputError(f"{Path.cwd()} is not a DVC project: run from the project's folder")
    dvc.mend_lock(log)
    _mend_results(log)
    with dvc.opened() as repo:
        stages = [s for s in repo.index.stages if s.cmd]
        places = {Path(out.fs_path).parent for stage in stages for out in stage.outs}
        cache = Path(repo.cache.local_cache_dir)
        with repo.lock:
            own = cache.is_relative_to(repo.root_dir)
            _remove_copies(cache, own, log)
            _remove_empty(Path(repo.cache.legacy.path, "runs"), own)
            kept = _cached_again(stages)
    for name in kept:
        log(f"{name}: its outputs had not reached DVC's cache, now they have")
    for place in sorted(places | {Path.cwd() / ".cache/features"}):
        _remove_parts(place, log)


def _mend_results(log) -> None:
    """Put dvc.lock back as the last run found it, or as git has it, where a killed dvc left half of it.

    What ended since then, or all of it where there is no other dvc.lock, comes out of the run-cache. Raises
    `InputError` where git merges two of them.
    """
    try:
        with dvc.opened() as repo:
            repo.index.stages  # noqa: B018, reads it
    except InputError as error:
        if LOCK.name not in str(error):
            raise
        try:
            half = LOCK.read_bytes()
        except OSError:  # no file, or not ours to read: the error says so
            raise error from None
        if re.search(rb"^(<<<<<<<|>>>>>>>) ", half, re.M):
            raise InputError(f"{LOCK}: git left both sides of a merge in it: keep one of them, and run again") from None
        write_atomically(DAMAGED, half)
        found = KEPT.read_bytes() if KEPT.exists() else _committed(LOCK)
        if found:
            write_atomically(LOCK, found)
            log(f"{LOCK}: a killed dvc left half of it; it is what it was before that run")
        else:
            LOCK.unlink()
            log(f"{LOCK}: a killed dvc left half of it, now {DAMAGED}; what it knew comes out of the run-cache")
    if LOCK.exists() and not (KEPT.exists() and filecmp.cmp(LOCK, KEPT, shallow=False)):
        write_atomically(KEPT, LOCK.read_bytes())


def _committed(file):
    """What the last commit has of a file; None outside of git and where it has none."""
    try:
        return git.run_bytes("show", f"HEAD:./{file}")
    except InputError:
        return None


def stages_of(styles: list[str] | None) -> list[str]:
    """The names of the stages in the current folder's dvc.yaml that belong to `styles`; for None all."""
    with dvc.opened() as repo:
        own = [s.addressing for s in repo.index.stages if s.cmd and s.path_in_repo == "dvc.yaml"]
    return own if styles is None else [name for name in own if name.partition("@")[2] in styles]


def run_stages(
    names: list[str],
    *options: str,
    log: Callable[[str], None],
    tick: Callable[[], None] | None = None,
    echo: Callable[[bytes], None] | None = None,
) -> tuple[int, list[str]]:
    """`dvc repro` of stages and what they need: exit status and lines, by `dvc.run`; options are dvc's.

    The status is 0 only if the stages are up to date then, with every out in DVC's cache. The reason of another is
    `process.reason` of the lines.
    """
    status, lines = dvc.run("repro", *options, *names, log=log, tick=tick, echo=echo)
    if not status and (left := unfinished(names)):
        return 1, [*lines, f"error: {left}"]
    return status, lines


def unfinished(names: list[str]) -> str:
    """What is not up to date, or not in DVC's cache, in one line; empty where nothing is, or another run is at work."""
    for name, changes in (dvc.status(names) or {}).items():
        found = {path: what for entry in changes if isinstance(entry, dict) for path, what in _paths(entry).items()}
        if missing := [path for path, what in found.items() if what == "not in cache"]:
            return f"{name}: {missing[0]} did not reach DVC's cache: {dvc.full()}"
        said = f" ({', '.join(sorted(found)[:3])})" if found else ""
        return f"{name} is out of date again{said}: something changed while it ran; run again"
    return ""


def did_something(lines: list[str]) -> bool:
    """Whether a stage ran or came out of the run-cache."""
    return any(line.startswith("Running stage '") or "is cached - skipping run" in line for line in lines)


def reason(lines: list[str]) -> str:
    """Why a run of stages failed, in one line that begins with the stage's name where dvc names one."""
    why = process.reason(lines)
    failed = [found[1] for line in lines if (found := re.match(r"ERROR: failed to reproduce '([^']+)'", line))]
    if failed and re.search(r"exited with (-9|137)$", why):
        why = "the system killed it (SIGKILL): most likely memory ran out; lower the batch_size of its section"
    return f"{failed[0]}: {why}" if failed and failed[0] not in why else why


def _paths(entry):
    return {path: what for part in entry.values() if isinstance(part, dict) for path, what in part.items()}


def _remove_parts(folder: Path, log) -> None:
    """Remove from a folder what processes that are gone left half-written."""
    for part in sorted(folder.glob(".*.part")):
        if (found := PART.fullmatch(part.name)) and _is_gone(int(found[1]), part):
            shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink()
            log(f"removed {part}: a process that was killed left half of it")


def _is_gone(pid: int, part: Path) -> bool:
    """Whether no process has the id, or one that began after the file was last written."""
    try:
        return psutil.Process(pid).create_time() > part.lstat().st_mtime + 1
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _remove_copies(cache: Path, own: bool, log) -> None:
    """Remove what a dvc that is gone half copied into its cache; it takes the space of whole files."""
    found = [f for place in ("files", "runs") for f in (cache / place).rglob(".*.tmp") if COPY.fullmatch(f.name)]
    found = [f for f in found if time.time() - f.lstat().st_mtime > (REST if own else OLD)]
    if not found:
        return
    in_use = _open_files()
    found = [f for f in found if str(f) not in in_use]
    size = sum(f.lstat().st_size for f in found)
    for file in found:
        file.unlink()
    if found:
        log(f"removed {len(found)} half copied files from {cache}, {size / 1e6:.1f} MB")


def _remove_empty(runs: Path, own: bool) -> None:
    """Remove a run-cache's folders for results that hold none: dvc would fail at such a stage for ever.

    Killed between making the folder and writing into it, it leaves one. In a cache of one's own nobody writes now.
    """
    for folder in runs.glob("*/*"):
        if own or time.time() - folder.lstat().st_mtime > REST:
            with contextlib.suppress(OSError):  # it holds something, as nearly all do
                folder.rmdir()


def _open_files() -> set[str]:
    """What this user's processes have open."""
    found = set()
    for running in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            found |= {file.path for file in running.open_files()}
    return found


def _cached_again(stages) -> list[str]:
    """Copy outs into the cache that are exactly those of dvc.lock and not in it; the names of their stages.

    Otherwise dvc would delete them and run their stages again. Raises `InputError` where there is still no room.
    """
    done = []
    for stage in stages:
        lost = [out for out in stage.outs if out.use_cache and out.hash_info and out.exists and out.changed_cache()]
        for out in lost:
            if out.changed_checksum():
                continue
            with contextlib.suppress(OSError):  # what it did is looked at, not believed
                out.commit()
            if out.changed_cache():
                raise InputError(f"{out}: {dvc.full()}")
            done.append(stage.addressing)
    return list(dict.fromkeys(done))

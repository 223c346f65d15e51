"""A copy of the finished project for one trial, and ways to spoil it."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import ruamel.yaml

from tests.pipeline.conftest import copy

STYLE = "watercolor"
PICTURES = f"data/styles/{STYLE}"
ADAPTER = f"models/adapters/{STYLE}"
GENERATED = f"data/generated/{STYLE}"
METRICS = f"metrics/{STYLE}"
CHECKS = "data/checks"
OUTS = (CHECKS, f"data/captions/{STYLE}.jsonl", ADAPTER, GENERATED, METRICS)
LOCK = ".dvc/tmp/rwlock"
TOUCHED = "touched-by-injection"  # the file that an injected command would make
# What no command of a trial reads.
UNREAD = ("tests", "docs", "bench", "deploy", "examples")
# What a command may write into where it stands; all other files are shared with the finished project.
WRITTEN_IN_PLACE = (
    ".git/index",
    ".git/config",
    ".git/HEAD",
    ".git/logs",
    ".git/refs",
    ".dvc/tmp",
    "dvc.lock",
    ".cache",
)
YAML = ruamel.yaml.YAML(typ="safe", pure=True)  # DVC's; the reader that is tried is another


class Tree:
    """A project that a trial may spoil. Every change replaces a file, so that files shared with others stay whole."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, name: str) -> Path:
        """A place in the project, its folder there; what stood at that place is gone."""
        self.remove(name)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, content: bytes | str) -> None:
        content = content.encode("utf-8") if isinstance(content, str) else content
        self.path(name).write_bytes(content)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def remove(self, name: str) -> None:
        path = self.folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_symlink() or path.exists():
            path.unlink()

    def rename(self, name: str, to: str) -> None:
        (self.folder / to).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).rename(self.folder / to)

    def copy(self, name: str, to: str) -> None:
        source = self.folder / name
        if source.is_dir():
            shutil.copytree(source, self.path(to))
        else:
            shutil.copy2(source, self.path(to))

    def cut(self, name: str, share: float = 0.5) -> None:
        """Keep the first `share` of a file, as a full disk or a lost connection would."""
        content = self.read(name)
        self.write(name, content[: int(len(content) * share)])

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text that must be there."""
        content = self.read(name).decode("utf-8")
        if old not in content:
            raise LookupError(f"{name} lacks {old!r}")
        self.write(name, content.replace(old, new, 1))

    def knob(self, knob: str, value: str | None) -> None:
        """Give a knob of params.yaml another value, as YAML text; None takes its line out."""
        lines, out, path = self.read("params.yaml").decode("utf-8").split("\n"), [], []
        for line in lines:
            if found := re.match(r"( *)([\w-]+):", line):
                depth = len(found[1]) // 2
                path = [*path[:depth], found[2]]
                if ".".join(path) == knob:
                    out += [] if value is None else [f"{found[1]}{found[2]}: {value}"]
                    continue
            out.append(line)
        if out == lines and value is not None:
            raise LookupError(f"{knob} was {value} already, or is not in params.yaml")
        self.write("params.yaml", "\n".join(out))

    def add(self, section: str, line: str) -> None:
        """Put a line below a section's name in params.yaml."""
        self.edit("params.yaml", f"\n{section}:\n", f"\n{section}:\n{line}\n")

    def style_named(self, name: str) -> None:
        """Name the style otherwise, in YAML text; its reference then is another folder, for no name is drawn."""
        self.knob(f"styles.{STYLE}.reference", "data/styles/pencil")
        self.edit("params.yaml", f"\n  {STYLE}:\n", f"\n  {name}:\n")


def finish(folder: Path) -> None:
    """Run the pipeline of a small project in `folder`, with a checkpoint every second epoch."""
    part = folder.with_name("project.part")
    shutil.rmtree(part, ignore_errors=True)
    project = copy(part)
    project.edit("params.yaml", "  every: ", "  every: 2")
    for name in UNREAD:
        shutil.rmtree(part / name)
    for style in (part / "data/styles").iterdir():
        if style.name not in (STYLE, "pencil"):
            shutil.rmtree(style)
    project.repro()
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "finished")
    project.run("git", "gc", "--quiet", "--prune=now")
    part.rename(folder)


def copied(finished: Path, folder: Path) -> Tree:
    """A copy of the finished project at `folder`; what stood there is gone.

    Its files are hard links, but for those that git, DVC or a stage writes in place.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-al", finished, folder], check=True)
    for name in (*WRITTEN_IN_PLACE, *OUTS):
        for file in [place, *place.rglob("*")] if (place := folder / name).exists() else []:
            if file.is_file():
                content = file.read_bytes()
                file.unlink()
                file.write_bytes(content)
    # DVC keeps what it knows of a place outside of it unless told otherwise
    (folder / ".dvc/config.local").write_text(f"[core]\n    site_cache_dir = {folder}.site\n", encoding="utf-8")
    return Tree(folder)


def outs(folder: Path, places: Sequence[str] = OUTS) -> dict[str, str]:
    """The digest of every file below some places, the outs unless others are named."""
    found = {}
    for out in places:
        place = folder / out
        for file in sorted([place, *place.rglob("*")]):
            if file.is_file() and not file.is_relative_to(folder / "data/checks"):  # marks, of no work
                found[str(file.relative_to(folder))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def left_over(folder: Path) -> list[str]:
    """Half-written files and folders that nothing removed."""
    return [str(f.relative_to(folder)) for f in folder.rglob("*.part") if ".git" not in f.parts]

"""The state of the project's folder: whether its outputs are current, and how its code differs from a commit."""

import os
import shlex
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from aclora.core import params, yaml_reader
from aclora.core.errors import InputError, did_you_mean
from aclora.project import dvc, git
from aclora.project.records import LOCK, flat

# What git is for; a folder with anything else in it is DVC's.
TEXT = {".txt", ".py", ".yaml", ".json", ".jsonl", ".md", ".csv", ".toml"}
LARGEST = 10_000_000  # bytes of an untracked file, or of an untracked folder's files, that a patch still includes


@dataclass(frozen=True)
class Code:
    """A commit, the work tree's differences from it as a patch, and untracked inputs that are too large for that."""

    commit: str
    patch: bytes
    left_out: list[str]


def require_up_to_date(styles: list[str]) -> None:
    """Raise `InputError` for an unknown style of the current folder, and for one with outputs that are out of date."""
    known = params.styles()
    for style in styles:
        if style not in known:
            raise InputError(f"style {style!r} is unknown; {did_you_mean(style, known)}")
    if why := stale(styles, Path()):
        raise InputError(f"{why}: run `dvc repro` first, then its results can be published")


def stale(styles: list[str], root: Path) -> str | None:
    """The first stage of `styles` in `root` that is out of date, and its files; None if all are up to date.

    Raises `InputError` while another dvc runs one of them.
    """
    with dvc.opened(root) as repo:
        names = {s.addressing: name for name, s in dvc.stages(repo).items() if name.partition("@")[2] in styles}
    found = dvc.status(list(names), root)
    if found is None:
        raise InputError(f"another dvc is running a stage of {', '.join(styles)}: repeat when it has finished")
    for stage, changes in found.items():
        paths = sorted({path for entry in changes for part in _mappings(entry) for path in part})
        what = f" ({', '.join(paths[:3])}{', …' * (len(paths) > 3)})" if paths else ""
        return f"{names[stage]} is out of date{what}"
    return None


def _mappings(entry):
    """The paths → changes in one entry of DVC's status."""
    return [part for part in entry.values() if isinstance(part, dict)] if isinstance(entry, dict) else []


def code(root: Path, stages: dict[str, dict], base: str = "HEAD") -> Code | None:
    """The state of the tree in which `stages` ran, as what differs from the commit `base`; None outside of git.

    There is no patch where nothing that these stages read differs: another style's parameters or pictures do not count,
    nor does what the pipeline itself writes. Otherwise it holds all differences, so that the code fits together.
    Untracked files are in it if a stage depends on them or if they are DVC's.
    """
    try:
        commit = git.run("rev-parse", base, folder=root).strip()
    except InputError:
        return None
    with dvc.opened(root) as repo:
        outs = [os.path.relpath(o.fs_path, root) for s in repo.index.stages for o in s.outs if s.cmd]
    inputs = {dep for stage in stages.values() for dep in stage["deps"]}
    untracked = git.run("ls-files", "-oz", "--exclude-standard", ".", folder=root).split("\0")[:-1]
    new = [f for f in untracked if f.endswith(".dvc") or _touches(f, inputs)]
    new = [f for f in new if not any(Path(f).is_relative_to(o) for o in outs)]
    inside = {path: [f for f in new if _touches(f, [path])] for path in inputs}
    left_out = sorted(path for path, files in inside.items() if sum((root / f).stat().st_size for f in files) > LARGEST)
    large = {f for path in left_out for f in inside[path]}
    excluded = [f":(exclude,literal){o}" for o in [*outs, LOCK]]
    with tempfile.TemporaryDirectory() as scratch:
        # an index of its own: the user's stays as it is
        here = {"folder": root, "env": {"GIT_INDEX_FILE": str(Path(scratch) / "index")}, "config": git.NO_HOOKS}
        git.run("read-tree", "HEAD", **here)
        git.run("add", "-u", "--", ".", *excluded, **here)
        if included := [f":(literal){f}" for f in new if f not in large]:
            git.run("add", "--", *included, **here)
        patch = git.run_bytes("diff", "--cached", "--binary", base, "--", ".", *excluded, **here)
        names = git.run("diff", "--cached", "--name-only", "--relative", "-z", base, "--", ".", *excluded, **here)
    changed = [name for name in names.split("\0") if name] + left_out
    if not any(_matters(name, root, stages, commit) for name in changed):
        return Code(commit, b"", [])
    return Code(commit, patch, left_out)


def _matters(file: str, root: Path, stages: dict[str, dict], base: str) -> bool:
    """Whether a file that differs from the commit `base` makes a difference for these stages."""

    def then():
        return yaml_reader.parse(git.run("show", f"{base}:./{file}", folder=root))

    inputs = {dep for stage in stages.values() for dep in stage["deps"]}
    try:
        if file == str(params.FILE):
            before, now = then(), yaml_reader.parse((root / file).read_text(encoding="utf-8"))
            keys = {key for stage in stages.values() for key in stage["params"]}
            return any(_at(before, key) != _at(now, key) for key in keys)
        if file == "dvc.yaml":
            before, now = then(), yaml_reader.parse((root / file).read_text(encoding="utf-8"))
            names = {name.partition("@")[0] for name in stages}
            return any(_definition(before, name) != _definition(now, name) for name in names)
    except Exception:  # one of them cannot be read
        return True
    return _touches(file, inputs)


def _touches(file: str, inputs: Collection[str]) -> bool:
    """Whether a file is one of the inputs, inside of one, or the .dvc file of one."""
    data = Path(file.removesuffix(".dvc"))
    return any(Path(file).is_relative_to(i) or data.is_relative_to(i) or Path(i).is_relative_to(data) for i in inputs)


def _at(values, key):
    """The value of a parameter ("train", "styles.ink"); None where there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _definition(pipeline, name):
    """What decides what a stage of dvc.yaml does; how its results are plotted does not."""
    stage = pipeline["stages"].get(name) or {}
    stage = stage.get("do", stage)
    return [stage.get(key) for key in ("cmd", "wdir", "deps", "params", "outs", "metrics")], pipeline.get("vars")


def differences(root: Path, stages: dict[str, dict]) -> list[str]:
    """The parameters and files of `root` that are not those with which `stages` ran, one line each."""
    found = []
    with dvc.opened(root) as repo:
        for name, stage in dvc.stages(repo).items():
            recorded = stages.get(name)
            if not recorded:
                continue
            for dep in stage.deps:
                if dvc.holds_params(dep):
                    now, then = flat(dep.read_params()), flat(recorded["params"])
                    keys = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
                    found += [f"{k} = {now.get(k)}, recorded {then.get(k)}" for k in keys]
                elif not dep.exists:
                    found.append(f"{dep.def_path} is missing")
                elif (now := dep.get_hash().value) != (then := recorded["deps"].get(dep.def_path)):
                    found.append(f"{dep.def_path} has md5 {now}, recorded {then}")
    return list(dict.fromkeys(found))


def require_for_experiments(styles: list[str]) -> None:
    """Raise `InputError` with the commands to type if an experiment in a copy of the project would lack an input."""
    if missing := untracked_inputs(styles):
        paths = ", ".join(path for path, _ in missing)
        commands = " && ".join(dict.fromkeys(command for _, command in missing))
        raise InputError(f"experiments would lack {paths}, in neither git nor DVC: `{commands} && git commit`")


def untracked_inputs(styles: list[str]) -> list[tuple[str, str]]:
    """What the stages of `styles` read and an experiment's copy of the project would lack, and the command that helps.

    `dvc exp run --temp`, DVC's queue and the flow sweep copy what is in git's index and what a .dvc file there names.
    The inputs are the stages' dependencies and whatever a knob names: folders, files, modules. Empty outside of git.
    """
    try:
        top = Path(git.run("rev-parse", "--show-toplevel").rstrip("\n"))
    except InputError:
        return []
    inputs, data = _inputs(styles)
    outside = [path for path in inputs if not Path(os.path.abspath(path)).is_relative_to(top)]
    inside = [path for path in inputs if path not in outside]
    found = [(path, "name it by its absolute path in params.yaml") for path in outside]
    listed = {how: _listed(how, [*inside, *data.values()]) for how in ("--cached", "--others")}
    visible = set(_listed("--others", inside, "--exclude-standard"))
    lacking = [file for file in listed["--others"] if not _passed_over(file, data)]
    for path in inside:
        for out, file in data.items():
            touches = Path(path).is_relative_to(out) or Path(out).is_relative_to(path)
            if touches and file not in listed["--cached"]:
                found.append((out, _git_add(file, Path(out).with_name(".gitignore"))))
        if not (new := [file for file in lacking if Path(file).is_relative_to(path)]):
            continue
        if any(Path(file).is_relative_to(path) for file in listed["--cached"]) or all(_is_text(f) for f in new):
            option = () if visible.issuperset(new) else ("-f",)
            found.append((path, _git_add(*option, path)))
        else:
            add = _git_add(f"{path}.dvc", Path(path).with_name(".gitignore"))
            found.append((path, f"{shlex.join(['dvc', 'add', path])} && {add}"))
    return list(dict.fromkeys(found))


def _inputs(styles):
    """The inputs inside of the project that exist, and what .dvc files hold: path of the data → path of its file."""
    here = Path.cwd()
    with dvc.opened() as repo:
        stages = [s for name, s in dvc.stages(repo).items() if name.partition("@")[2] in styles]
        made = {o.fs_path for s in repo.index.stages if s.cmd for o in s.outs}
        deps = [d.def_path for s in stages for d in s.deps if not dvc.holds_params(d) and d.fs_path not in made]
        files = [(o.fs_path, s.path) for s in repo.index.stages if not s.cmd for o in s.outs]
    data = {os.path.relpath(out, here): os.path.relpath(file, here) for out, file in files}
    known = params.read()
    sections = [v for key, v in known.items() if key != "styles"] + [known["styles"][name] for name in styles]
    named = [form for value in _texts(sections) for form in _paths(value)]
    inputs = [os.path.normpath(path) for path in [*deps, *named] if not os.path.isabs(path)]
    inputs = [path for path in dict.fromkeys(inputs) if Path(path).exists() and path != "."]
    return [path for path in inputs if not any(path != o and Path(path).is_relative_to(o) for o in inputs)], data


def _texts(values):
    """Every text in nested sections and lists."""
    if isinstance(values, str):
        return [values] if values else []
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return [text for value in inner for text in _texts(value)]


def _paths(name):
    """What a knob's value may be of the project's: a path, or a module by its dotted name."""
    module = name.replace(".", "/")
    return [name] if "/" in name else [f"{module}.py", module] if "." in name else []


def _listed(kind, paths, *options):
    """The files at or below the paths as `git ls-files` lists them, relative to the current folder."""
    return git.run("ls-files", "-z", kind, *options, "--", *paths).split("\0")[:-1] if paths else []


def _is_text(file):
    return Path(file).suffix in TEXT


def _passed_over(file, data):
    """Whether an untracked file does not matter: byte code, a hidden or half-written file, or DVC's."""
    hidden = any((part.startswith(".") and part != "..") or part == "__pycache__" for part in Path(file).parts)
    return hidden or any(Path(file).is_relative_to(out) for out in data)


def _git_add(*paths) -> str:
    return shlex.join(["git", "add", *map(str, paths)])

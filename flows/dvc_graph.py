"""DVC's graph, as far as the flows ask for it: stages in their order, what changed, what is made."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from aclora.core import params
from aclora.core.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, the stages it needs, and the style it is of: what stands behind its name's @."""

    name: str
    needs: tuple[str, ...]
    style: str | None


def chosen(styles: list[str] | None) -> list[str]:
    """The styles meant, each once; None: all. Raises `InputError` for one that params.yaml does not have."""
    known = params.styles()
    for name in styles or ():
        if name not in known:
            raise InputError(f"style {name!r} is unknown; {did_you_mean(name, known)}")
    return known if styles is None else list(dict.fromkeys(styles))


def need_remote() -> None:
    """Raises `InputError` where DVC has no default remote."""
    with _repo() as repo:
        if not repo.config["core"].get("remote"):
            raise InputError(
                "remote is true and DVC has no default remote: `dvc remote add --default NAME URL`, or start the run "
                "with remote false"
            )


def has_remote() -> bool:
    """Whether DVC has a default remote."""
    with _repo() as repo:
        return bool(repo.config["core"].get("remote"))


def stages(styles: list[str] | None) -> list[Stage]:
    """The stages of the root's dvc.yaml, each after what it needs: those of `styles` and what these need; None: all.

    Raises `InputError` where DVC cannot read the pipeline.
    """
    import networkx

    with _repo() as repo:
        graph = repo.index.graph  # an edge leads from a stage to what it depends on
        known = params.styles()
        ours = {s: _style(s.addressing, known) for s in graph if s.path_in_repo == "dvc.yaml"}
        last = len(known)
        rank = {name: i for i, name in enumerate(known if styles is None else styles)}
        goals = [s for s in ours if styles is None or ours[s] in styles]
        goals.sort(key=lambda s: rank.get(ours[s], last))
        order = dict.fromkeys(n for goal in goals for n in networkx.dfs_postorder_nodes(graph, goal))
        return [
            Stage(s.addressing, tuple(d.addressing for d in graph.successors(s) if d.cmd), _style(s.addressing, known))
            for s in order
            if s.cmd  # a .dvc file is data, nothing to run
        ]


def changed(names: list[str]) -> set[str]:
    """Those of the stages whose dependencies, parameters or outs are not those of dvc.lock; all, where another
    process is at work on them."""
    from dvc.lock import LockError

    with _repo() as repo:
        try:
            return set(repo.status(targets=names)) & set(names)
        except LockError:
            return set(names)


def moved(styles: list[str]) -> list[str]:
    """Those of the styles of which a stage, or one that it needs, has changed."""
    ours = {s.name: s.style for s in stages(styles)}
    found = {ours[name] for name in changed(list(ours))}
    return [name for name in styles if name in found or None in found]


def remember(names: list[str]) -> None:
    """Enter stages that ran into the run-cache: DVC leaves out those with an out that git keeps (`cache: false`)."""
    with _repo() as repo:
        for stage in repo.index.stages:
            if stage.addressing in names:
                repo.stage_cache.save(stage)


def push_kept(names: list[str]) -> None:
    """Push what git keeps of the stages' outs, which `dvc push` leaves out.

    The run-cache names these too: where the remote has them not, `dvc repro --pull` runs the stage a second time.
    Raises `InputError` where the remote refuses.
    """
    with _repo() as repo:
        for stage in repo.index.stages:
            if stage.addressing in names:
                for out in stage.outs:
                    out.use_cache = True  # of this object, not of the file
                for odb, objects in stage.get_used_objs().items():
                    if repo.cloud.push(objects, odb=odb).failed:
                        raise InputError(f"DVC: the outs of {stage.addressing} could not be pushed")


def outs() -> list[str]:
    """The paths of everything that the root's dvc.yaml makes, with the .gitignore files that DVC writes beside them."""
    with _repo() as repo:
        made = [o.def_path for s in repo.index.stages if s.cmd and s.path_in_repo == "dvc.yaml" for o in s.outs]
    return [*made, *dict.fromkeys(PurePosixPath(out).with_name(".gitignore").as_posix() for out in made)]


def _style(name, known):
    style = name.rpartition("@")[2] if "@" in name else None
    return style if style in known else None


@contextlib.contextmanager
def _repo() -> Iterator:
    """DVC's view of the folder as it stands now; its errors in one line."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(".", _wait_for_lock=True) as repo:
            yield repo
    except DvcException as error:
        raise InputError(f"DVC: {' '.join(str(error).split())}") from None

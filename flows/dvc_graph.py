"""What the flows ask of DVC: the stages in their order, which changed, their outs, its remote."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from aclora.core import params
from aclora.core.errors import InputError, did_you_mean
from aclora.project import dvc


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, the stages it needs, and its style: the part of its name after the @."""

    name: str
    needs: tuple[str, ...]
    style: str | None


def chosen(styles: list[str] | None) -> list[str]:
    """The given styles without repetitions, for None all. Raises `InputError` for one that params.yaml lacks."""
    known = params.styles()
    for name in styles or ():
        if name not in known:
            raise InputError(f"style {name!r} is unknown; {did_you_mean(name, known)}")
    return known if styles is None else list(dict.fromkeys(styles))


def stages(styles: list[str] | None) -> list[Stage]:
    """The stages of `styles` in the root's dvc.yaml and those they need, each after what it needs; for None all.

    Raises `InputError` if DVC cannot read the pipeline.
    """
    import networkx

    with dvc.opened() as repo:
        graph = repo.index.graph  # an edge leads from a stage to what it depends on
        known = params.styles()
        style_of = {s: _style(s.addressing, known) for s in graph if s.path_in_repo == "dvc.yaml"}
        rank = {name: i for i, name in enumerate(known if styles is None else styles)}
        goals = [s for s in style_of if styles is None or style_of[s] in styles]
        goals.sort(key=lambda s: rank.get(style_of[s] or "", len(known)))
        order = dict.fromkeys(n for goal in goals for n in networkx.dfs_postorder_nodes(graph, goal))
        return [
            Stage(s.addressing, tuple(d.addressing for d in graph.successors(s) if d.cmd), _style(s.addressing, known))
            for s in order
            if s.cmd  # a .dvc file is data, nothing to run
        ]


def _style(name, known):
    style = name.rpartition("@")[2] if "@" in name else None
    return style if style in known else None


def changed(names: list[str]) -> set[str]:
    """The stages whose dependencies, parameters or outs differ from dvc.lock; all while one of them is running."""
    found = dvc.status(names)
    return set(names) if found is None else set(found)


def changed_styles(styles: list[str]) -> list[str]:
    """The styles of which a stage, or one that it needs, has changed."""
    style_of = {s.name: s.style for s in stages(styles) if not dvc.is_check(s.name)}
    found = {style_of[name] for name in changed(list(style_of))}
    return [name for name in styles if name in found or None in found]


def outs() -> list[str]:
    """The paths of all outs of the root's dvc.yaml, and of the .gitignore files that DVC writes beside them."""
    with dvc.opened() as repo:
        paths = [o.def_path for s in repo.index.stages if s.cmd and s.path_in_repo == "dvc.yaml" for o in s.outs]
    return [*paths, *dict.fromkeys(PurePosixPath(path).with_name(".gitignore").as_posix() for path in paths)]


def has_remote() -> bool:
    """Whether DVC has a default remote."""
    with dvc.opened() as repo:
        return bool(repo.config["core"].get("remote"))


def require_remote() -> None:
    """Raise `InputError` if DVC has no default remote."""
    if not has_remote():
        raise InputError(
            "remote is true and DVC has no default remote: `dvc remote add --default NAME URL`, or start the run "
            "with remote false"
        )


def save_to_run_cache(names: list[str]) -> None:
    """Enter stages that ran into the run-cache: DVC leaves out those with an out that git keeps (`cache: false`)."""
    with dvc.opened() as repo:
        for stage in repo.index.stages:
            if stage.addressing in names:
                repo.stage_cache.save(stage)


def push_outs_in_git(names: list[str]) -> None:
    """Push those of the stages' outs that git keeps, which `dvc push` leaves out.

    The run-cache lists these too: if the remote lacks them, `dvc repro --pull` runs the stage a second time. Raises
    `InputError` if the remote refuses.
    """
    with dvc.opened() as repo:
        for stage in repo.index.stages:
            if stage.addressing in names:
                for out in stage.outs:
                    out.use_cache = True  # of this object, not of the file
                for odb, objects in stage.get_used_objs().items():
                    if repo.cloud.push(objects, odb=odb).failed:
                        raise InputError(f"DVC: the outs of {stage.addressing} could not be pushed")

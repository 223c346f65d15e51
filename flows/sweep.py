"""`sweep`: a grid of parameters × styles as DVC experiments, resumable."""

import hashlib
import itertools
import json
import os
import re

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from aclora.core import params
from aclora.core.errors import InputError, require
from aclora.evaluation.evaluate import project_figures
from aclora.project import dvc, evaluations, git, process, workspace
from flows import dvc_graph, tasks, worktree

AGAIN = "`aclora publish --experiments` sends them"


@flow
def sweep(grid: dict[str, list], styles: list[str] | None = None, at_once: int = 1) -> State:
    """Run every combination of the grid for every style, each as an experiment of the current commit.

    An experiment that exists does not run again, and a stage that any experiment has run comes from the run-cache: a
    sweep that was stopped continues where it was. `dvc exp show` lists them all, `aclora compare` takes their names,
    and each is a run in MLflow.

    Args:
        grid: for each knob ("aclora.restart_every") its values.
        styles: entries under `styles` in params.yaml; without any, all.
        at_once: how many experiments at a time? Each needs its own share of the GPU's memory. ≥ 1.
    """
    log = get_run_logger()
    try:
        tasks.begin()
        require(at_once >= 1, "at_once", at_once, "at least 1")
        names = dvc_graph.chosen(styles)
        points = list(grid_points(grid))
        workspace.require_for_experiments(names)
        worktree.refuse_dirty(dvc_graph.outs(), "sweep")
        targets = {name: _last_stages(name) for name in names}
    except InputError as error:
        return Failed(message=str(error))
    jobs = [(name_of(style, point), style, point) for style in names for point in points]
    done = experiments()
    log.info("%d experiments, %d of them done", len(jobs), sum(name in done for name, _, _ in jobs))
    rows, futures = {}, {}
    runner = ThreadPoolTaskRunner(max_workers=at_once)
    with runner:
        for name, style, point in jobs:
            if name in done:
                rows[name] = Completed(name="Unchanged")
            else:
                arguments = {"name": name, "point": point, "targets": targets[style], "style": style}
                futures[name] = runner.submit(experiment.with_options(task_run_name=name), arguments)
        with process.ending_all():
            wait(list(futures.values()))
    rows |= {name: future.state for name, future in futures.items()}
    done = experiments()
    publish({name: style for name, style, _ in jobs if name in done})
    table = []
    for name, style, point in jobs:
        scores = _scores(done[name], style) if name in done else {}
        why = rows[name].message if rows[name].name == "Failed" else ""
        table.append({"experiment": name, "style": style} | point | {"outcome": rows[name].name.lower()} | scores)
        table[-1] |= {"why": why} if any(r.name == "Failed" for r in rows.values()) else {}
    head = git.run("rev-parse", "--short", "HEAD").strip()
    create_table_artifact(table, key="sweep", description=f"Experiments of {head}")
    outcomes = [row["outcome"] for row in table]
    summary = ", ".join(f"{outcomes.count(o)} {o}" for o in dict.fromkeys(outcomes))
    if "failed" in outcomes:
        return Failed(message=f"{summary}. " + "; ".join(f"{r['experiment']}: {r['why']}" for r in table if r["why"]))
    return Completed(message=summary)


@task(cache_policy=NO_CACHE, persist_result=False)
def experiment(name: str, point: dict, targets: list[str], style: str) -> State:
    """One experiment in a folder of its own; Ran, or Restored if all of it came from the run-cache.

    Its run is in MLflow as soon as it has finished.
    """
    settings = [word for knob, value in point.items() for word in ("-S", f"{knob}={json.dumps(value)}")]
    status, lines = dvc.run("exp", "run", "--temp", "-n", name, *settings, *targets, log=get_run_logger().info)
    if status:
        return Failed(message=process.reason(lines))
    publish({name: style})
    ran = any(line.startswith("Running stage") for line in lines)
    return Completed(name="Ran" if ran else "Restored", message=f"dvc exp apply {name}")


def publish(style_of: dict[str, str]) -> None:
    """Publish experiments of the current commit, each for its style; what is there already costs little.

    Whatever fails there is a warning: an experiment that has its results did not fail.
    """
    if os.environ.get("ACLORA_TRACKING") == "off":
        return
    log = get_run_logger()
    try:
        from aclora.tracking import revisions

        head = git.run("rev-parse", "HEAD").strip()
        known = [e for e in revisions.experiments() if e.baseline == head and e.name in style_of]
        for style in dict.fromkeys(style_of.values()):
            chosen = [e for e in known if style_of[e.name] == style]
            for outcome in revisions.publish_revisions(chosen, [style]):
                if outcome.error:
                    log.warning("MLflow did not get %s, %s: %s", outcome.revision, AGAIN, outcome.error)
    except Exception as error:
        log.warning("MLflow did not get the experiments, %s: %s", AGAIN, tasks.one_line(error))


def grid_points(grid: dict[str, list]) -> list[dict]:
    """Every combination, the last knob fastest. Raises `InputError` for an unknown knob, no or repeated values."""
    if not grid:
        raise InputError('grid = {}: must name a knob and its values, for instance {"train.seed": [0, 1]}')
    for knob, values in grid.items():
        params.value(knob)
        require(isinstance(values, list) and len(values) > 0, f"grid.{knob}", values, "a list of at least one value")
        require(len({json.dumps(v) for v in values}) == len(values), f"grid.{knob}", values, "distinct values")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def name_of(style: str, point: dict) -> str:
    """The experiment's name: style, knobs and values, as far as git permits them in a name, and a digest of all."""
    exact = json.dumps([style, point])
    readable = f"{style}_" + ",".join(f"{knob}={value}" for knob, value in point.items())
    permitted = re.sub(r"[^\w=,.+-]+|\.\.+", "-", readable)[:120].strip(".-")
    return f"{permitted}_{hashlib.sha256(exact.encode()).hexdigest()[:6]}"


def experiments() -> dict[str, str]:
    """The commits of the current commit's experiments by their names."""
    return git.experiments(of=git.run("rev-parse", "HEAD").strip())


def _last_stages(style):
    """The style's stages that no other stage of its needs."""
    stages = dvc_graph.stages([style])
    needed = {name for stage in stages for name in stage.needs}
    return [stage.name for stage in stages if stage.name not in needed]


def _scores(commit, style):
    try:
        file = f"metrics/{style}/scores.json"
        scores = evaluations.scores(git.run("show", f"{commit}:{file}"), file)
    except InputError:
        return {}
    shown = [figure.name for figure in project_figures().values() if figure.better]
    return {key: round(scores[key], 4) for key in shown if scores.get(key) is not None}

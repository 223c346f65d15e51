"""`style`: DVC's pipeline for the chosen styles, one task per stage."""

import contextlib

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from aclora.core.errors import InputError
from flows import dvc_graph, tasks, worktree


def _name() -> str:
    return ", ".join(flow_run.parameters.get("styles") or ["all styles"])


@flow(flow_run_name=_name)
def style(styles: list[str] | None = None, remote: bool = False, commit: str | None = None) -> State:
    """Bring the styles up to date: what changed runs, what is in the run-cache is restored, the rest stays.

    Args:
        styles: entries under `styles` in params.yaml; without any, all of them and the stages without a style.
        remote: first fetch other machines' results from DVC's remote, at the end send it the new ones.
        commit: check this commit out first, in a clone that no other run uses; `team` sets it for its workers.
    """
    with contextlib.ExitStack() as clone:
        try:
            tasks.begin()
            if commit:
                clone.enter_context(worktree.exclusive())
                worktree.refuse_dirty(dvc_graph.outs(), "a run for the team")
                worktree.check_out(commit)
                tasks.fetch()
            names = dvc_graph.chosen(styles)
            if remote:
                dvc_graph.require_remote()
            results = tasks.run(None if styles is None else names, remote)
        except InputError as error:
            return Failed(message=str(error))
        return tasks.report(results, tasks.publish(tasks.complete_styles(results)), "stages")

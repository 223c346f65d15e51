"""`retrain`: fetch, run the styles whose inputs changed, and make the new adapter champion where it wins."""

import os
import re
import tempfile
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from aclora.core.errors import InputError, require
from aclora.evaluation.champion import Verdict, decide
from aclora.evaluation.evaluate import project_figures
from aclora.metrics.contract import scores
from flows import dvc_graph, tasks, worktree


@flow
def retrain(styles: list[str] | None = None, margin: float = 0.05) -> State:
    """Run what changed, commit dvc.lock, compare each style with its champion, move the alias or keep it, say why.

    `aclora.evaluation.champion.decide` is the rule. A dirty work tree is refused; DVC's own outs may differ.

    Args:
        styles: entries under `styles` in params.yaml; without any, all.
        margin: how much worse, as a share of the champion's value, is still no loss? 0 … 1.
    """
    log = get_run_logger()
    try:
        tasks.begin()
        require(0 <= margin <= 1, "margin", margin, "between 0 and 1")
        worktree.refuse_dirty(dvc_graph.outs(), "retrain")
        remote = dvc_graph.has_remote()
        log.info("git: %s", worktree.pull() or "no upstream branch, nothing fetched")
        if remote:
            tasks.fetch()
        names = dvc_graph.chosen(styles)
        changed = dvc_graph.changed_styles(names)
        log.info("styles with changed inputs: %s", ", ".join(changed) or "none")
        results = tasks.run(changed, remote) if changed else []
        ran = [r.stage.name for r in results if r.outcome in ("Ran", "Restored")]
        commit = worktree.commit(dvc_graph.outs(), f"retrain: {', '.join(changed) or 'earlier results'}")
        log.info("git: %s", f"committed {commit}" if commit else "nothing to commit")
    except InputError as error:
        return Failed(message=str(error))
    complete = [name for name in names if name not in changed or name in tasks.complete_styles(results)]
    links = tasks.publish(complete)
    verdicts = {name: judge.with_options(task_run_name=f"judge {name}")(name, margin) for name in complete}
    create_markdown_artifact(_page(names, changed, verdicts, links), key="retrain", description="Champions, and why")
    won = [name for name, verdict in verdicts.items() if verdict.promote]
    summary = f"{len(ran)} stages ran; new champions: {', '.join(won) or 'none'}"
    state = tasks.report(results, links, "retrain-stages") if results else Completed()
    return Failed(message=f"{summary}. {state.message}") if state.is_failed() else Completed(message=summary)


@task(cache_policy=NO_CACHE, persist_result=False)
def judge(style: str, margin: float) -> Verdict:
    """Compare with the champion and move the alias if the rule says so; without a registry nothing moves."""
    if os.environ.get("ACLORA_TRACKING") == "off":
        return Verdict(False, "tracking is off: there is no registry", [])
    try:
        from aclora.project.fingerprint import run_fingerprint
        from aclora.tracking import publish

        with tempfile.TemporaryDirectory() as folder:
            champion = publish.champion(style, Path(folder))
            if champion is None:
                verdict = Verdict(True, "there was no champion: the first one becomes it", [])
            elif champion.fingerprint == run_fingerprint(style):
                verdict = Verdict(False, f"it is this very run, version {champion.version}", [])
            else:
                verdict = decide(Path("metrics", style), champion.folder, margin, scores(project_figures()))
        if verdict.promote:
            publish.promote(style)
    except Exception as error:  # MLflow gone, or without this style: retraining itself did not fail
        get_run_logger().warning("the registry did not answer: %s", tasks.one_line(error))
        return Verdict(False, f"the registry did not answer ({tasks.one_line(error)}); the next run asks again", [])
    return verdict


def _page(names, changed, verdicts, links):
    lines = []
    for name in names:
        verdict = verdicts.get(name)
        lines += [f"## {name}", ""]
        lines.append("Inputs changed." if name in changed else "Inputs unchanged.")
        if verdict is None:
            lines += ["A stage failed: nothing to compare.", ""]
            continue
        outcome = "The new one is champion" if verdict.promote else "The champion stays"
        link = f" ({tasks.link(links[name])})" if name in links else ""
        lines += [f"**{outcome}**{link}: {_literal(verdict.why)}.", ""]
        if verdict.figures:
            lines += ["| figure | new | champion | difference, 95 % interval | |", "|---|---|---|---|---|"]
            lines += [
                f"| {f['figure']} | {f['new']:.3f} | {f['champion']:.3f} | {f['difference']} | {f['judged']} |"
                for f in verdict.figures
            ]
            lines.append("")
    return "\n".join(lines)


def _literal(text):
    """Text from files and servers as Markdown shows it: no link, no HTML."""
    return re.sub(r"([\\`*_\[\]()<>#|!&~])", r"\\\1", " ".join(text.split()))

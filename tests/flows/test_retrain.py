"""`retrain`: what changed runs, is committed and judged."""

import pytest

from flows.retrain import retrain


@pytest.fixture
def flow(toy, prefect):
    """Run the flow; its last state, the outcome of each stage, the page that says why."""

    def run(*args, **kwargs):
        state = retrain(*args, return_state=True, **kwargs)
        run_id = str(state.state_details.flow_run_id)
        found = prefect.get("artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}})
        pages = {a["key"]: a["data"] for a in found}
        return state, prefect.tasks(run_id), pages.get("retrain", "")

    return run


def test_only_styles_with_changed_inputs_run(toy, flow):
    toy.run("dvc", "repro")
    toy.commit()
    (toy.folder / "pictures/ink/2.png").write_text("another")
    toy.commit()
    state, tasks, page = flow()
    assert state.is_completed(), state.message
    assert tasks == dict.fromkeys(["caption@ink", "train-aclora@ink", "evaluate@ink"], "Ran")
    assert toy.run("git", "log", "-1", "--format=%s").stdout == "retrain: ink\n"
    assert toy.run("git", "status", "--porcelain").stdout == ""
    assert page.startswith("## oil\n\nInputs unchanged.\n**The champion stays**: tracking is off")
    assert "## ink\n\nInputs changed." in page

    state, tasks, _ = flow()
    assert not tasks
    assert state.message == "0 stages ran; new champions: none"


def test_a_dirty_tree_is_refused(toy, flow):
    toy.edit("params.yaml", "seed: 0", "seed: 1")
    state, tasks, _ = flow()
    assert state.is_failed()
    assert state.message.startswith("the work tree is dirty: params.yaml; retrain starts from a commit")
    assert not tasks


@pytest.mark.slow
def test_pictures_that_others_pushed_are_fetched(toy, flow):
    """A picture known to git by its .dvc file alone, pushed from another clone."""
    shared, bare, other = (toy.folder.parent / name for name in ("shared", "origin.git", "other"))
    toy.run("dvc", "remote", "add", "-q", "--default", "shared", str(shared))
    toy.run("git", "rm", "-rq", "--cached", "pictures/oil")
    toy.run("dvc", "add", "-q", "pictures/oil")
    toy.commit()
    toy.run("git", "clone", "-q", "--bare", ".", str(bare))
    toy.run("git", "remote", "add", "origin", str(bare))
    toy.run("git", "fetch", "-q")
    toy.run("git", "branch", "-q", "-u", "origin/main")
    toy.run("dvc", "push", "-q")
    assert flow()[0].is_completed()
    toy.run("git", "push", "-q")

    toy.run("git", "clone", "-q", str(bare), str(other))
    script = """
        cd ../other && dvc pull -q pictures/oil.dvc && echo more > pictures/oil/2.png && dvc add -q pictures/oil &&
        dvc push -q && git -c user.name=o -c user.email=o@o commit -qam theirs && git push -q
    """
    toy.run("sh", "-c", script)
    state, tasks, _ = flow()
    assert state.is_completed(), state.message
    assert tasks == dict.fromkeys(["caption@oil", "train-aclora@oil", "evaluate@oil"], "Ran")
    assert (toy.folder / "pictures/oil/2.png").read_text() == "more\n"


def test_a_margin_out_of_range_is_an_error(flow):
    assert flow(margin=2)[0].message == "margin = 2.0: must be between 0 and 1"


def test_what_a_server_says_is_no_markup_of_the_page():
    from aclora.evaluation.champion import Verdict
    from flows.retrain import _page

    hostile = "prompt '<img src=x onerror=alert(1)> [here](javascript:alert(1)) | **x**'\n# title"
    page = _page(["oil"], {"oil"}, {"oil": Verdict(False, hostile, [])}, {})
    assert "<img" not in page.replace(r"\<img", "")
    assert "](" not in page.replace(r"\](", "").replace(r"]\(", "")
    assert "\n# title" not in page

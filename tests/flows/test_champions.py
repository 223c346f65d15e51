"""`retrain` with the miniature and MLflow: the first becomes champion, the next is compared with it."""

import pytest

from flows.retrain import retrain
from tests.pipeline.conftest import copy


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The miniature's project with 6 prompts and 2 epochs, the current folder, tracked in its own database."""
    project = copy(tmp_path / "project")
    project.edit("params.yaml", "  epochs: ", "  epochs: 2")
    prompts = project.folder / "data/prompts.txt"
    prompts.write_text("".join(prompts.read_text().splitlines(keepends=True)[:6]))
    commit(project)
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("PYTHONPATH", str(project.folder / "src"))
    monkeypatch.delenv("ACLORA_TRACKING")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return project


def commit(project):
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "change")


@pytest.mark.slow
def test_the_first_is_champion_and_the_next_is_compared(project, prefect):
    from aclora.tracking.publish import champion

    def run():
        state = retrain(return_state=True)
        run_id = str(state.state_details.flow_run_id)
        found = prefect.get("artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}})
        assert state.is_completed(), state.message
        return state.message, next(a["data"] for a in found if a["key"] == "retrain")

    def version():
        folder = project.folder.parent / "champion"
        folder.mkdir(exist_ok=True)
        return champion("watercolor", folder).version

    message, page = run()
    assert message == "7 stages ran; new champions: watercolor"
    assert "there was no champion: the first one becomes it" in page
    assert version() == "1"
    assert project.run("git", "status", "--porcelain").stdout == ""

    assert "it is this very run, version 1" in run()[1]

    project.edit("params.yaml", "  guidance_scale: ", "  guidance_scale: 1.0")
    commit(project)
    message, page = run()
    assert "| CLIP score ↑ |" in page
    promoted = "new champions: watercolor" in message
    assert version() == ("2" if promoted else "1")
    assert ("**The new one is champion**" if promoted else "**The champion stays**") in page
    assert any(why in page for why in ("better: ", "worse: ", "a draw: "))
    assert project.run("git", "log", "-1", "--format=%s").stdout == "retrain: watercolor\n"

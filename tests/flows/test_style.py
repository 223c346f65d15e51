"""`style` on a real Prefect server: outcomes, reasons, the table, and progress."""

import json

import pytest

from flows.style import style
from tests.flows.conftest import free_port, until

ALL = ["caption@oil", "train-aclora@oil", "evaluate@oil", "caption@ink", "train-aclora@ink", "evaluate@ink"]


@pytest.fixture
def flow(toy, prefect):
    """Run the flow; its last state, the outcome of each stage, the artifacts by key."""

    def run(*args, **kwargs):
        state = style(*args, return_state=True, **kwargs)
        found = prefect.get(
            "artifacts/filter", artifacts={"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}}
        )
        return state, prefect.tasks(str(state.state_details.flow_run_id)), {a["key"]: a for a in found}

    return run


def test_ran_then_unchanged_then_restored(toy, flow):
    state, tasks, artifacts = flow()
    assert state.is_completed()
    assert tasks == dict.fromkeys(ALL, "Ran")
    rows = json.loads(artifacts["stages"]["data"])
    assert [row["style"] for row in rows] == ["oil", "ink"]
    assert rows[0]["train-aclora"].startswith("ran ")

    state, tasks, _ = flow()
    assert tasks == dict.fromkeys(ALL, "Unchanged")
    assert state.message == "6 unchanged"

    toy.edit("params.yaml", "seed: 0", "seed: 1")
    assert flow(["oil"])[1] == dict(zip(ALL[:3], ["Unchanged", "Ran", "Ran"], strict=True))
    toy.edit("params.yaml", "seed: 1", "seed: 0")
    assert flow(["oil"])[1] == dict(zip(ALL[:3], ["Unchanged", "Restored", "Restored"], strict=True))


def test_a_failing_stage_leaves_the_other_style_and_says_why(toy, flow):
    (toy.folder / "pictures/oil/bad.png").touch()
    state, tasks, artifacts = flow()
    assert state.is_failed()
    why = "caption@oil: pictures/oil/bad.png is no picture: remove it"
    assert state.message == f"3 ran, 1 failed, 2 notrun. {why}"
    assert tasks == dict(zip(ALL, ["Failed", "NotRun", "NotRun", "Ran", "Ran", "Ran"], strict=True))
    assert (toy.folder / "metrics/ink/scores.json").exists()
    row = json.loads(artifacts["stages"]["data"])[0]
    assert row["why"] == f"{why}; train-aclora@oil: it needs caption@oil; evaluate@oil: it needs train-aclora@oil"
    (toy.folder / "pictures/oil/bad.png").unlink()
    assert flow()[1] == dict(zip(ALL, ["Ran"] * 3 + ["Unchanged"] * 3, strict=True))


@pytest.mark.parametrize("left", ["", '{"write": {"/x": {"pid": 1'])
def test_half_a_lock_file_of_a_killed_dvc_stops_no_run(toy, flow, left):
    (toy.folder / ".dvc/tmp").mkdir(exist_ok=True)
    (toy.folder / ".dvc/tmp/rwlock").write_text(left)
    assert "corrupted" in toy.run("dvc", "repro", "caption@oil", check=False).stderr
    assert flow(["oil"])[1] == dict.fromkeys(ALL[:3], "Ran")


@pytest.mark.slow
def test_a_stages_output_is_in_the_runs_log(flow, prefect):
    state, _, _ = flow(["oil"])
    run = {"any_": [str(state.state_details.flow_run_id)]}

    def messages():
        return [row["message"] for row in prefect.get("logs/filter", logs={"flow_run_id": run})]

    until(lambda: "captions of oil" in messages(), 20, "the stage's line in the log")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"styles": ["oyl"]}, "style 'oyl' is unknown; did you mean 'oil'? there are: oil, ink"),
        ({"remote": True}, "remote is true and DVC has no default remote"),
    ],
)
def test_bad_input_runs_nothing(flow, kwargs, message):
    state, tasks, _ = flow(**kwargs)
    assert state.is_failed()
    assert state.message.startswith(message)
    assert not tasks


@pytest.mark.slow
def test_progress_while_training(toy, flow):
    toy.edit("params.yaml", "epochs: 2", "epochs: 150")
    _, _, artifacts = flow(["oil"])
    assert artifacts["training-oil"]["data"] == 100
    assert "of 150, loss 0." in artifacts["training-oil"]["description"]


@pytest.mark.slow
def test_another_machines_results_are_fetched(toy, flow, monkeypatch):
    shared = toy.folder.parent / "shared"
    toy.run("dvc", "remote", "add", "-q", "--default", "shared", str(shared))
    toy.commit()
    other = toy.folder.parent / "other"
    toy.run("git", "clone", "-q", str(toy.folder), str(other))
    assert set(flow(["oil"], remote=True)[1].values()) == {"Ran"}
    monkeypatch.chdir(other)
    # evaluate too, whose figures git keeps: `dvc push` alone would leave them out
    assert flow(["oil"], remote=True)[1] == dict.fromkeys(ALL[:3], "Restored")


def test_without_mlflow_a_run_completes(flow, prefect, monkeypatch):
    monkeypatch.delenv("ACLORA_TRACKING")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    state, tasks, artifacts = flow(["oil"])
    assert state.is_completed()
    assert set(tasks.values()) == {"Ran"}
    assert json.loads(artifacts["stages"]["data"])[0]["MLflow"] == ""
    run = {"any_": [str(state.state_details.flow_run_id)]}
    until(
        lambda: any(
            "MLflow did not get" in row["message"] for row in prefect.get("logs/filter", logs={"flow_run_id": run})
        ),
        20,
        "the warning in the log",
    )

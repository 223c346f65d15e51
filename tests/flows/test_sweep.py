"""`sweep`: experiments of a grid, done once."""

import json

import pytest

from aclora.core.errors import InputError
from flows import sweep as module
from flows.sweep import sweep


@pytest.fixture
def flow(toy, prefect, monkeypatch):
    """Run the flow; its last state and the rows of its table."""
    monkeypatch.setenv("ACLORA_TRACKING", "off")

    def run(*args, **kwargs):
        state = sweep(*args, return_state=True, **kwargs)
        run_id = str(state.state_details.flow_run_id)
        found = prefect.get("artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}})
        return state, json.loads(found[0]["data"]) if found else []

    return run


def test_every_combination_runs_once(toy, flow):
    state, rows = flow({"train.seed": [0, 1], "train.epochs": [3]}, ["oil"], at_once=2)
    assert state.is_completed(), state.message
    assert [row["outcome"] for row in rows] == ["ran", "ran"]
    assert [row["kid"] for row in rows] == [0.25, 0.2]
    listed = toy.run("dvc", "exp", "list", "--name-only").stdout.split()
    assert set(listed) == {row["experiment"] for row in rows}
    assert rows[0]["experiment"].startswith("oil_train.seed=0,train.epochs=3_")

    # one value more: what is done is not done again
    state, rows = flow({"train.seed": [0, 1, -1], "train.epochs": [3]}, ["oil"])
    assert [row["outcome"] for row in rows] == ["unchanged", "unchanged", "ran"]
    assert toy.run("git", "status", "--porcelain").stdout == ""  # experiments run elsewhere


def test_each_experiment_is_published_and_mlflows_refusal_fails_none(toy, flow, monkeypatch, caplog):
    """The toy's experiments have scores, but not the files that a run in MLflow holds."""
    monkeypatch.delenv("ACLORA_TRACKING")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    state, rows = flow({"train.seed": [0]}, ["oil"])
    assert state.is_completed(), state.message
    said = [line for line in caplog.messages if line.startswith("MLflow did not get ")]
    assert said
    assert all(rows[0]["experiment"] in line for line in said)
    assert all("`aclora publish --experiments` sends them: " in line for line in said)


@pytest.mark.slow
def test_a_failed_experiment_is_named_and_the_others_are_kept(toy, flow):
    (toy.folder / "pictures/ink/bad.png").touch()
    toy.commit()
    state, rows = flow({"train.seed": [0, 1]}, at_once=2)
    assert [row["outcome"] for row in rows] == ["ran", "ran", "failed", "failed"]
    assert state.message.startswith("2 ran, 2 failed. ink_train.seed=0")
    assert "pictures/ink/bad.png is no picture" in rows[2]["why"]


def test_points_of_a_grid(toy):
    points = module.grid_points({"train.seed": [0, 1], "train.epochs": [1, 2]})
    assert [tuple(p.values()) for p in points] == [(0, 1), (0, 2), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "must name a knob and its values"),
        ({"train.seeds": [0]}, "train.seeds is missing; did you mean 'seed'"),
        ({"train.seed": []}, "grid.train.seed = .*at least one value"),
        ({"train.seed": [1, 1]}, "grid.train.seed = .*distinct values"),
    ],
)
def test_a_bad_grid_is_an_error_that_names_the_knob(toy, grid, message):
    with pytest.raises(InputError, match=message):
        module.grid_points(grid)


def test_names_are_valid_in_git_and_distinct(toy):
    names = {module.name_of("oil", {"a.b": value}) for value in ("x y", "x~y", "x-y", None, 1, "1", "..", "é" * 200)}
    assert len(names) == 8
    for name in names:
        toy.run("git", "check-ref-format", f"refs/exps/ab/cd/{name}")


def test_bad_input_runs_nothing(toy, flow):
    (toy.folder / "pictures/ink/2.png").touch()
    state, _ = flow({"train.seed": [0]})
    assert state.is_failed()
    assert state.message == (
        "experiments would lack pictures/ink, in neither git nor DVC: `git add pictures/ink && git commit`"
    )
    toy.run("git", "add", "pictures/ink")
    state, _ = flow({"train.seed": [0]})
    assert state.message.startswith("the work tree is dirty: pictures/ink/2.png; sweep starts from a commit")
    assert flow({"train.seed": [0]}, ["oyl"])[0].message.startswith("style 'oyl' is unknown")
    assert flow({"train.seed": [0]}, at_once=0)[0].message == "at_once = 0: must be at least 1"

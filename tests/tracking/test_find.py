"""A run to reproduce is found by id, alias or fingerprint; what is missing or ambiguous is said in one line."""

import json

import pytest

from aclora.core.errors import InputError
from aclora.tracking import store
from aclora.tracking.reproduce import STAGES, find
from tests.tracking.conftest import HISTORY, RUN, TRAIN, train

LOCK = {f"{stage}@fog": {"deps": {}} for stage in STAGES}


@pytest.fixture
def published(home):
    """The id of a run that has all that a published one has, and the alias `champion`."""
    with store.connected() as client:
        run = store.run_of(client, "fog", RUN, TRAIN)
        run_id = run.info.run_id
        client.log_text(run_id, json.dumps(LOCK), "dvc/lock.json")
        client.log_text(run_id, "a patch", "git/diff.patch")
        store.log_texts(client, run_id, {}, {store.ADAPTER: "d", store.DIRTY: "true", store.COMMIT: "c" * 40})
        model = client.create_logged_model(run.info.experiment_id, "fog", run_id).model_id
        store.register(client, "fog", run_id, model)
        client.set_registered_model_alias(store.model_name("fog"), "champion", "1")
    return run_id


def test_by_id_alias_and_beginning_of_the_fingerprint(published):
    found = find(published)
    assert (found.run_id, found.style, found.commit, found.digest) == (published, "fog", "c" * 40, "d")
    assert (found.patch, found.stages) == (b"a patch", LOCK)
    assert find("fog@champion") == find(RUN[:6]) == find(RUN) == found


def test_a_beginning_of_several_fingerprints_lists_them(home):
    others = [RUN[:-2] + end for end in ("00", "ff")]
    with store.connected() as client:
        for other in others:
            store.run_of(client, "fog", other, other)
    with pytest.raises(InputError, match=f"run '{RUN[:8]}' could be any of: fog ") as error:
        find(RUN[:8])
    assert all(other in str(error.value) for other in others)


@pytest.mark.parametrize("name", ["fog@champion", "0123456789abcdef0123456789abcdef", "abcdef", "abc", "fog", "a'b"])
def test_a_missing_run_is_named_with_its_store(home, name):
    with pytest.raises(InputError, match="run ") as error:
        find(name)
    assert name in str(error.value)
    assert str(home) in str(error.value)


def test_without_a_store_nothing_is_found_and_nothing_created(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI"):
        find("fog@champion")
    assert not list(tmp_path.iterdir())


def test_a_live_run_cannot_be_reproduced(home):
    train(HISTORY[:1])
    with pytest.raises(InputError, match="never published completely: `aclora publish fog`"):
        find(RUN[:8])

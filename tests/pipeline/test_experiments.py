"""Each experiment is a change of parameters: it trains another adapter and records what it did to the pictures."""

import hashlib
import json
import shutil

import pytest

from tests.pipeline.conftest import Project

ADAPTER = "models/adapters/watercolor"
CHANGES = {
    "limit": {"  limit: ": "  limit: 5"},
    "captions": {"  corrupt: ": "  corrupt: captions"},
    "noise": {"  corrupt: ": "  corrupt: noise"},
    "foreign": {"  corrupt: ": "  corrupt: foreign"},
    "adversarial": {"  corrupt: ": "  corrupt: adversarial"},
    "feature loss": {"  feature_loss: ": "  feature_loss: 0.5"},
    "resolution": {"  resolution: ": "  resolution: 32"},
    "static threshold": {"  threshold: ": "  threshold: 0.8"},
    "zero padding": {"  noise: ": "  noise: zero"},
    "product": {"  restart_on: ": "  restart_on: product"},
}


def digest(project):
    return hashlib.sha256((project.folder / ADAPTER / "pytorch_lora_weights.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def trained(done, tmp_path_factory):
    """A copy in which three epochs were trained: a RESTART after each of the first two."""
    folder = tmp_path_factory.mktemp("experiments") / "project"
    shutil.copytree(done.folder, folder, symlinks=True)
    project = Project(folder)
    project.edit("params.yaml", "  epochs: ", "  epochs: 3")
    project.edit("params.yaml", "  restart_every: ", "  restart_every: 1")
    shutil.rmtree(folder / ADAPTER)
    assert project.run("python", "-m", "stages.train", "watercolor").returncode == 0
    return project, digest(project)


QUICK = ("limit", "captions", "zero padding")


@pytest.mark.parametrize("change", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CHANGES])
def test_a_change_of_parameters_trains_another_adapter(trained, change):
    project, plain = trained
    params = project.folder / "params.yaml"
    before = params.read_bytes()
    try:
        for old, new in CHANGES[change].items():
            project.edit("params.yaml", old, new)
        ran = project.run("python", "-m", "stages.train", "watercolor")
    finally:
        params.write_bytes(before)
    assert ran.returncode == 0, ran.stderr
    assert digest(project) != plain
    about = json.loads((project.folder / ADAPTER / "adapter.json").read_text())
    assert about["pictures"] == (5 if change == "limit" else 12)
    spoilt = change in ("captions", "noise", "foreign", "adversarial")
    assert len(about.get("corrupted", [])) == (3 if spoilt else 0)

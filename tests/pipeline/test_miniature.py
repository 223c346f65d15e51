"""The miniature's own pipeline from nothing, a few steps of each part."""

import pytest
import yaml

from miniature import captioner, clip, dino, reward
from miniature.card import NETWORKS
from miniature.drawing import draw
from miniature.judging.encoder import Judge
from tests.conftest import model_at


@pytest.mark.slow
def test_every_part_is_trained_from_nothing_and_loads(project):
    file = project.folder / "miniature/params.yaml"
    params = yaml.safe_load(file.read_text(encoding="utf-8"))
    params |= {"scenes": 48, "styled": 24, "shown": 240, "reconstructed": 24}
    preset = params["presets"]["cpu"]
    for part in (preset["vae"], preset["text_to_image"], *(params[network] for network in NETWORKS)):
        part["schedule"] |= {"cycles": [2, 1], "batch_size": 8}
    file.write_text(yaml.safe_dump(params), encoding="utf-8")
    done = project.run("dvc", "repro", "miniature/dvc.yaml", env={"PYTHONPATH": str(project.folder)})
    assert done.returncode == 0, done.stdout + done.stderr
    build = project.folder / "miniature/build"
    assert model_at(build / "pipeline").size == 64
    assert Judge.from_pretrained(build / "judge").feature_scale > 0
    sets = {"plain": [draw(i) for i in range(6)], "oil": [draw(i, style="oil") for i in range(6)]}
    assert 0 <= clip.measure(build / "clip", sets, among=5)["retrieval"] <= 1
    for part in (dino, reward, captioner):
        measured = part.measure(build / part.__name__.split(".")[-1], sets)
        assert all(v >= 0 for v in measured.values() if not isinstance(v, dict))
    # the pipeline above takes no notice: it reads models/miniature
    listed = project.run("dvc", "dag", "--md").stdout
    assert "miniature/build" not in listed

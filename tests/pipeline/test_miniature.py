"""The miniature's own pipeline from nothing, a few steps of each part."""

import pytest
import yaml

from aclora.backbone import Model, load_pipeline, native_size
from aclora.metrics.encoders import Judge


@pytest.mark.slow
def test_every_part_is_trained_from_nothing_and_loads(project):
    file = project.folder / "miniature/params.yaml"
    params = yaml.safe_load(file.read_text(encoding="utf-8"))
    params |= {"scenes": 48, "styled": 24}
    for part in ("vae", "judge", "text_to_image"):
        params["presets"]["cpu"][part]["schedule"] |= {"steps": 3, "batch_size": 8}
    params["presets"]["cpu"]["judge"]["reconstructed"] = 8
    file.write_text(yaml.safe_dump(params), encoding="utf-8")
    done = project.run("dvc", "repro", "miniature/dvc.yaml", env={"PYTHONPATH": str(project.folder)})
    assert done.returncode == 0, done.stdout + done.stderr
    build = project.folder / "miniature/build"
    pipe = load_pipeline(Model(name=str(build / "pipeline"), watch=str(build / "pipeline")))
    assert native_size(pipe) == 64
    assert Judge.from_pretrained(build / "judge").feature_scale > 0
    # the pipeline above takes no notice: it reads models/miniature
    listed = project.run("dvc", "dag", "--md").stdout
    assert "miniature/build" not in listed

"""A mistake in params.yaml or in a style's folder costs no result: DVC removes a stage's outs before it starts it."""

import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.pipeline.conftest import Project

PICTURES = Path("data/styles/watercolor")


@pytest.fixture(scope="module")
def finished(done, tmp_path_factory):
    """A copy of the finished project to spoil."""
    folder = tmp_path_factory.mktemp("kept") / "project"
    shutil.copytree(done.folder, folder, symlinks=True)
    return Project(folder)


def outs(project):
    """Every out of the pipeline, file by file, but for the mark that the inputs were looked at."""
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    paths = [project.folder / o["path"] for stage in lock.values() for o in stage["outs"]]
    files = [f for path in paths for f in (path.rglob("*") if path.is_dir() else [path]) if not f.is_dir()]
    return {str(f): f.read_bytes() for f in files if "checks" not in f.parts}


def knob(line, value):
    return lambda p: p.edit("params.yaml", line, f"{line}{value}")


def broken_reference(p):
    """A reference folder of one picture that cannot be read."""
    folder = p.folder / "data/held_out"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "1.png")
    (folder / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nnot")
    p.edit("params.yaml", "    reference: ", "    reference: data/held_out")


MISTAKES = {
    "a knob misspelt": (lambda p: p.edit("params.yaml", "  epochs: ", "  epcohs: 8"), "train.epcohs is unknown"),
    "out of range": (knob("  learning_rate: ", "2"), "train.learning_rate = 2"),
    "of the last stage": (knob("  held_out: ", "1"), "evaluate.held_out = 1"),
    "of the audit": (knob("  loss_rise: ", ".inf"), "audit.loss_rise = inf"),
    "a rank too high": (knob("  max_rank: ", "65"), "aclora.max_rank = 65"),
    "a size that cannot be drawn": (knob("  resolution: ", "12"), "train.resolution = 12"),
    "an unknown method": (knob("  signal_rank: ", "enregy"), "aclora.signal_rank = 'enregy'"),
    "an encoder that is none": (knob("  clip: ", "models/none"), "evaluate.clip = 'models/none'"),
    "an empty caption": (lambda p: (p.folder / PICTURES / "05.txt").write_text(" \n"), "05.png has an empty caption"),
    "a picture cut short": (lambda p: cut(p.folder / PICTURES / "07.png"), "07.png"),
    "a reference that cannot be read": (broken_reference, "data/held_out/2.png"),
    "no style": (lambda p: p.edit("params.yaml", "styles:", "styles: {}\nx_styles:"), "styles is empty"),
    "a name that is a command": (
        lambda p: p.edit("params.yaml", "  watercolor:", '  "a; touch executed":'),
        "'a; touch executed' cannot be a style's name",
    ),
    "a name that is a number": (lambda p: p.edit("params.yaml", "  watercolor:", "  1:"), "the name 1 is no text"),
}


def cut(file):
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_costs_no_out(finished, mistake):
    spoil, said = MISTAKES[mistake]
    before, text = outs(finished), (finished.folder / "params.yaml").read_bytes()
    pictures = finished.folder.parent / "pictures"
    shutil.rmtree(pictures, ignore_errors=True)
    shutil.copytree(finished.folder / PICTURES, pictures)
    try:
        spoil(finished)
        failed = finished.run("dvc", "repro")
        after = outs(finished)
    finally:
        (finished.folder / "params.yaml").write_bytes(text)
        shutil.rmtree(finished.folder / PICTURES)
        shutil.copytree(pictures, finished.folder / PICTURES)
    assert failed.returncode != 0
    assert [line for line in failed.stderr.splitlines() if line.startswith("error: ") and said in line], failed.stderr
    assert "Traceback" not in failed.stderr
    assert after == before
    assert not (finished.folder / "executed").exists()
    assert not (finished.folder / "miniature/build").exists()


def test_with_the_mistakes_mended_nothing_runs_but_the_looking(finished):
    said = finished.repro()
    assert "Running stage 'caption" not in said
    assert "Running stage 'evaluate" not in said

"""The whole pipeline on the miniature, as `dvc repro` runs it."""

import csv
import hashlib
import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from aclora.project.fingerprint import train_fingerprint
from tests.conftest import ROOT
from tests.test_house import OBSERVERS, has_code

STAGES = {  # file of stages/ → name in dvc.lock
    "check": "check",
    "check_style": "check-style@watercolor",
    "caption": "caption@watercolor",
    "train": "train-aclora@watercolor",
    "audit": "restart-audit@watercolor",
    "generate": "generate@watercolor",
    "evaluate": "evaluate@watercolor",
}


def outs(project):
    """Every out and its digest as dvc.lock has it."""
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text(encoding="utf-8"))
    return {o["path"]: o["md5"] for s in lock["stages"].values() for o in s["outs"]}


def read_json(project, file):
    return json.loads((project.folder / file).read_text(encoding="utf-8"))


def test_everything_comes_out(done):
    assert set(outs(done)) == {
        "data/checks/parameters",
        "data/checks/styles/watercolor",
        "data/captions/watercolor.jsonl",
        "models/adapters/watercolor",
        "metrics/watercolor/audit.json",
        "metrics/watercolor/spectra.npz",
        "metrics/watercolor/audit",
        "metrics/watercolor/loss.csv",
        "metrics/watercolor/restarts.csv",
        "data/generated/watercolor",
        "metrics/watercolor/contact_sheet.png",
        "metrics/watercolor/scores.json",
        "metrics/watercolor/evaluation.json",
        "metrics/watercolor/per_image.csv",
        "metrics/watercolor/per_reference.csv",
    }
    rows = (done.folder / "metrics/watercolor/restarts.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "2", "4", "6"]
    assert not [p for p in done.folder.rglob("*.part") if ".dvc" not in p.parts]
    audit = read_json(done, "metrics/watercolor/audit.json")
    assert audit["restarts"] == 3
    assert set(audit["signatures"]) == {"rank_collapse", "mode_collapse", "stagnation", "no_op"}
    with Image.open(done.folder / "metrics/watercolor/contact_sheet.png") as sheet:
        assert sheet.height > sheet.width
    for plot in ("restarts.png", "spectra.png"):
        with Image.open(done.folder / "metrics/watercolor/audit" / plot) as image:
            assert np.asarray(image).std() > 5


PAPERS = {"fid", "clip_score", "dino_score", "image_reward"}


def test_scores_are_flat_numbers_for_adapter_and_base(done):
    scores = read_json(done, "metrics/watercolor/scores.json")
    assert all(isinstance(v, float) for v in scores.values())
    assert PAPERS | {f"base_{k}" for k in PAPERS} | {"kid", "cmmd", "nfid", "copies", "drift"} <= set(scores)
    assert scores["kid"] != scores["base_kid"]
    shown = done.run("dvc", "metrics", "show").stdout
    assert "base_image_reward" in shown
    assert "audit" in shown


def test_every_figure_names_its_encoder_and_counts(done):
    scores = read_json(done, "metrics/watercolor/scores.json")
    about = read_json(done, "metrics/watercolor/evaluation.json")
    assert set(about["figures"]) == set(scores)
    for made in about["figures"].values():
        assert re.fullmatch(r"models/miniature/(judge|clip|dino|reward) [0-9a-f]{12}", made["encoder"])
        assert all(count >= 2 for key, count in made.items() if key not in ("encoder", "interval"))
        low, high = made.get("interval", (0, 0))
        assert low <= high
    assert about["figures"]["kid"] | {"encoder": ""} == {"encoder": "", "generated": 32, "reference": 24}
    assert about["figures"]["copies"]["training"] == 12
    assert about["counts"]["without_trigger"] == 32
    low, high = about["figures"]["clip_score"]["interval"]
    assert low < scores["clip_score"] < high


def test_per_image_values_average_to_the_scores(done):
    with (done.folder / "metrics/watercolor/per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [sum(r["set"] == kind for r in rows) for kind in ("adapter", "base", "plain_adapter", "plain_base")] == [
        32
    ] * 4
    scores = read_json(done, "metrics/watercolor/scores.json")
    for kind, prefix in (("adapter", ""), ("base", "base_")):
        for key in ("clip_score", "dino_score", "image_reward"):
            mean = np.mean([float(r[key]) for r in rows if r["set"] == kind])
            assert scores[prefix + key] == pytest.approx(mean, rel=1e-4, abs=1e-5)
    assert all("zxq style" in r["prompt"] for r in rows if not r["set"].startswith("plain"))
    assert not any("zxq" in r["prompt"] for r in rows if r["set"].startswith("plain"))
    assert {r["nearest_training"] for r in rows} <= {f"data/styles/watercolor/{i:02}.png" for i in range(1, 13)}


def test_the_scores_are_shown_as_a_table(done):
    said = done.run("aclora", "scores").stdout
    assert "watercolor: 32 pictures, 32 prompts, against 24 held-out drawings" in said
    kid = read_json(done, "metrics/watercolor/scores.json")["kid"]
    assert f"{kid:.3f}" in said
    assert "encoders: models/miniature/clip" in said


def test_the_cache_of_features_changes_nothing(done):
    scores = done.folder / "metrics/watercolor/scores.json"
    before = scores.read_bytes()
    assert list((done.folder / ".cache/features").glob("*.safetensors"))
    for state in ("as it is", "gone"):
        if state == "gone":
            shutil.rmtree(done.folder / ".cache")
        assert done.run("python", "-m", "stages.evaluate", "watercolor").returncode == 0
        assert scores.read_bytes() == before


def test_history_spectra_and_signal_belong_together(done):
    from safetensors import safe_open

    folder = done.folder / "models/adapters/watercolor"
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in history if r["event"] == "restart"] == [2, 4, 6]
    spectra = np.load(done.folder / "metrics/watercolor/spectra.npz")
    layers = spectra["layers"]
    assert spectra["A"].shape == spectra["B"].shape == spectra["BA"].shape == (len(layers), 32)
    assert spectra["restarts"].shape == (3, len(layers), 2, 32)
    signal = read_json(done, "models/adapters/watercolor/signal.json")
    with safe_open(folder / "signal.safetensors", "pt") as file:
        assert file.metadata()["trigger"] == "zxq style"
        assert file.metadata()["fingerprint"] == train_fingerprint("watercolor", done.folder)
        for layer, rank in signal["rank"].items():
            assert file.get_slice(f"unet.{layer}.lora_A.weight").get_shape()[0] == rank


def test_a_missing_caption_is_written_by_the_captioner(done):
    lines = (done.folder / "data/captions/watercolor.jsonl").read_text().splitlines()
    written = [row for row in map(json.loads, lines) if row["source"] == "models/miniature/captioner"]
    assert [row["file"] for row in written] == ["03.png"]
    assert written[0]["text"].endswith(", zxq style")
    own = (ROOT / "data/styles/watercolor/03.txt").read_text().split()
    assert len(set(own) & set(written[0]["text"].replace(",", "").split())) >= len(set(own)) / 2


def test_nothing_changed_means_nothing_done(done):
    before = outs(done)
    done.repro()  # a comment that another test changed is looked at again
    said = done.repro()
    assert "Data and pipelines are up to date" in said
    assert outs(done) == before


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_opens_is_declared(done, stage):
    seen = json.loads((done.spy / f"{stage}.json").read_text())
    lock = yaml.safe_load((done.folder / "dvc.lock").read_text(encoding="utf-8"))
    entry = lock["stages"][STAGES[stage]]
    declared = [Path(d["path"]) for d in entry["deps"]]
    own = [Path(o["path"]) for o in entry["outs"]]

    def source(name):
        path = Path(name)
        return Path(importlib.util.source_from_cache(path)) if path.suffix == ".pyc" else path

    opened = {source(n) for n in seen["opened"]}
    # params.yaml is declared section by section. Packages without code, an out's own scratch, the cache (features and
    # checkpoints, which change nothing), the rooms that stand around a run, and what DVC reads for a fingerprint do not
    # count.
    opened -= {Path("params.yaml")}
    opened = {p for p in opened if p.suffix != ".py" or has_code(ROOT / p)}
    opened = {p for p in opened if not any((ROOT / p).is_relative_to(room) for room in OBSERVERS)}
    of_dvc = {"dvc.yaml", "dvc.lock", "params.yaml", ".gitignore", ".dvcignore"}
    opened = {p for p in opened if p.parts[0] not in (".cache", ".dvc", ".git") and p.name not in of_dvc}
    opened = {
        p for p in opened if not p.name.endswith(".part") and not any(q.name.endswith(".part") for q in p.parents)
    }
    missing = {str(p) for p in opened if not any(p.is_relative_to(d) for d in [*declared, *own])}
    assert not missing
    if "params.yaml" in [d.name for d in declared]:
        return  # the stage depends on the whole file
    sections = entry.get("params", {}).get("params.yaml", {}).keys()
    # how often a checkpoint is written changes no out: tests/pipeline/test_resume.py
    asked = {a for a in seen["asked"] if a not in ("styles", "checkpoints")}
    assert not {a for a in asked if not any(f"{a}.".startswith(f"{section}.") for section in sections)}
    assert opened
    assert seen["asked"]


def test_only_what_depends_on_a_knob_runs_again(done):
    try:
        done.edit("params.yaml", "  sheet_rows: ", "  sheet_rows: 2")
        said = done.repro("--dry")
        assert "generate@watercolor" in said
        for stage in ("caption", "train-aclora", "restart-audit"):
            assert f"Running stage '{stage}@watercolor'" not in said
    finally:
        done.edit("params.yaml", "  sheet_rows: ", "  sheet_rows: 8")


@pytest.mark.slow
def test_twice_is_the_same_to_the_byte(done, project):
    project.repro()
    assert outs(project) == outs(done)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "trilora", "dora", "adalora", "loha", "lokr", "oft", "base"])
def test_the_rivals_run_the_same_pipeline(project, method):
    project.edit("params.yaml", "method: ", f"method: {method}")
    project.repro()
    scores = read_json(project, "metrics/watercolor/scores.json")
    audit = read_json(project, "metrics/watercolor/audit.json")
    assert audit["method"] == method
    assert audit["restarts"] == 0
    assert (scores["fid"] == scores["base_fid"]) == (method == "base")
    assert (scores["drift"] == pytest.approx(0, abs=1e-12)) == (method == "base")


@pytest.mark.slow
def test_the_cut_adapter_can_be_the_one_that_generates(done, project):
    project.edit("params.yaml", "  adapter: ", "  adapter: signal")
    project.repro()
    trained, cut = (outs(p)["data/generated/watercolor"] for p in (done, project))
    assert trained != cut
    assert outs(done)["models/adapters/watercolor"] == outs(project)["models/adapters/watercolor"]


def test_a_picture_is_what_its_line_says(done):
    folder = done.folder / "data/generated/watercolor"
    rows = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    assert [r["seed"] for r in rows] == list(range(30, 62))
    digests = {hashlib.md5((folder / "adapter" / r["file"]).read_bytes()).hexdigest() for r in rows}
    assert len(digests) == len(rows)

"""The table of a style's scores."""

import json
from pathlib import Path

import pytest

from aclora.core.errors import InputError
from aclora.report.scores import scores_table

INTERVALS = {"clip_score": [70.5, 71.5], "clip_score_minus_base": [-4.0, 1.25]}


def written(held_out=True, **more):
    """An evaluation of a style in ./metrics; its folder."""
    folder = Path("metrics/fog")
    folder.mkdir(parents=True)
    scores = {"kid": 0.0794, "base_kid": 0.61, "nfid": 0.5, "clip_score": 71.0, "base_clip_score": 75.3}
    scores |= {"drift": 0.3874, "dino_score": None, "real_dino_score": 0.3589} | more
    about = {
        "counts": {"generated": 64, "prompts": 32},
        "reference": {"what": "256 held-out drawings", "held_out": held_out, "digest": "d"},
        "figures": {k: {"encoder": "two 2" if "clip" in k else "one 1"} for k in scores},
    }
    for key, ends in INTERVALS.items():
        about["figures"].setdefault(key, {"encoder": "two 2"})["interval"] = ends
    (folder / "scores.json").write_text(json.dumps(scores))
    (folder / "evaluation.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_score_has_a_line_with_base_adapter_and_intervals():
    written()
    table = scores_table("fog")
    head, columns, *lines = table.splitlines()
    assert head == "fog: 64 pictures, 32 prompts, against 256 held-out drawings"
    rows = {line[2:52].strip(): line[52:] for line in lines}
    assert rows["KID ↓"].split() == ["0.610", "0.079"]
    assert rows["CLIP score ↑"] == f"{75.3:9.3f}{71:9.3f}   [70.500, 71.500]   [-4.000, +1.250]"
    assert (columns.index("base") + 4, columns.index("adapter") + 7) == (52 + 9, 52 + 18)  # above the ends of values
    assert columns.index("of adapter") == 52 + 18 + 3 + 19
    assert rows["drift without trigger ↓"] == f"{'':9}{0.3874:9.3f}"  # the base has none, and it lies in its column
    assert rows["DINO score of the real pictures themselves"].split() == ["0.359"]
    assert "DINO score ↑" not in rows  # null: not measured
    assert lines[-2].startswith("  encoders: one 1, two 2; ")
    assert lines[-1] == "  pictures: metrics/fog/contact_sheet.png · adapter: models/adapters/fog"


def test_it_warns_where_the_reference_was_trained_on():
    written(held_out=False)
    assert "reward copies" in scores_table("fog")


def test_no_warning_where_nobody_trained_on_the_reference():
    written()
    assert "reward copies" not in scores_table("fog")


def test_the_page_that_it_names_exists():
    written()
    (page,) = (word for word in scores_table("fog").split() if word.endswith(".md"))
    assert (Path(__file__).parents[2] / page).is_file()


@pytest.mark.parametrize("file", ["scores.json", "evaluation.json"])
def test_a_missing_file_is_named(file):
    (written() / file).unlink()
    with pytest.raises(InputError, match=f"metrics/fog/{file} is missing: run `dvc repro` first"):
        scores_table("fog")


def test_it_says_once_what_its_networks_were_trained_on():
    written()
    for name, known in (("one", "drawings"), ("two", "drawings")):
        Path(name).mkdir()
        Path(f"{name}/README.md").write_text(f"---\ntrained_on: {known}\n---\n", encoding="utf-8")
    lines = [line for line in scores_table("fog").splitlines() if "trained on" in line]
    assert lines == ["  one, two were trained on drawings: of other pictures their figures say little"]
    Path("two/README.md").write_text("---\ntrained_on: photographs\n---\n", encoding="utf-8")
    assert sum("trained on" in line for line in scores_table("fog").splitlines()) == 2


def test_nothing_is_said_of_networks_without_a_card():
    written()
    assert "trained on" not in scores_table("fog")

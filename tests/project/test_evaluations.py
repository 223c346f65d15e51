"""An evaluation's files, damaged: each is an error that names the file and what to do."""

import json
from pathlib import Path

import pytest

from aclora.core.errors import InputError
from aclora.project import evaluations
from tests.conftest import ROOT

FOLDER = ROOT / "metrics/watercolor"


def test_the_project_s_own_can_be_read():
    scores = evaluations.scores(*evaluations.text_of(FOLDER / "scores.json"))
    about = evaluations.about(*evaluations.text_of(FOLDER / "evaluation.json"))
    assert set(about["figures"]) <= set(scores)
    rows = evaluations.rows(*evaluations.text_of(FOLDER / "per_image.csv"), evaluations.IMAGES)
    assert len(rows) == sum(about["counts"][kind] * 2 for kind in ("generated", "without_trigger"))
    assert evaluations.number(rows[0], "seed", "per_image.csv") == 30


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "7", "{", '{"kid": "0.1"}', '{"kid": true}', '{"kid": [1]}', '{"kid": NaN}', "[" * 100_000],
)
def test_damaged_scores(text):
    with pytest.raises(InputError, match=r"^m/scores.json is damaged \(.*run the evaluate stage again"):
        evaluations.scores(text, "m/scores.json")


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("reference", None, "reference"),
        ("reference", {"what": "x", "digest": 7, "held_out": True}, "reference.digest"),
        ("counts", {"generated": "many", "prompts": 2}, "counts.generated"),
        ("figures", ["kid"], "figures"),
        ("figures", {"kid": {}}, "figures.kid.encoder"),
        ("figures", {"kid": {"encoder": "x", "interval": "wide"}}, "figures.kid.interval"),
    ],
)
def test_damaged_evaluations_are_named_to_the_entry(part, value, said):
    about = json.loads((FOLDER / "evaluation.json").read_text(encoding="utf-8")) | {part: value}
    with pytest.raises(InputError, match=rf"^e is damaged \({said}: "):
        evaluations.about(json.dumps(about), "e")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"line 2 \(no prompt"),
        ("[]", r"line 2 \(no prompt"),
        ("set,prompt,seed\n", r"line 2 \(no prompt"),
        ("set,prompt\na,b\n", r"line 2 \(no seed"),
        ("set,prompt,seed\na,b,1\na,b\n", r"line 3 \(no seed"),
        ("set,prompt,seed\na,b,1,2\n", r"line 2 \(more values than names"),
        ('set,prompt,seed\na,"b,1\n', "unexpected end of data"),
    ],
)
def test_damaged_tables(text, said):
    with pytest.raises(InputError, match=f"^t.csv is damaged .*{said}"):
        evaluations.rows(text, "t.csv", evaluations.IMAGES)


@pytest.mark.parametrize("value", ["", "x", None, "nan"])
def test_what_is_no_number(value):
    with pytest.raises(InputError, match=r"t.csv is damaged \(kid = .* is no number\)"):
        evaluations.number({"kid": value}, "kid", "t.csv")


def test_a_file_that_is_missing_or_no_text(tmp_path):
    with pytest.raises(InputError, match=r"none\.json is missing: run `dvc repro` first"):
        evaluations.text_of(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        evaluations.text_of(tmp_path)
    Path(tmp_path / "x.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"x.json is damaged \(it is not UTF-8\)"):
        evaluations.text_of(tmp_path / "x.json")

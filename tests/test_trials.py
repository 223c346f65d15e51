"""The verdicts of `make trials`: each fault is one, and what a user may rely on is none."""

import random

import jsonschema
import pytest

from tests.trials import kills
from tests.trials.case import Answered, Case, faults
from tests.trials.cases import fuzz, typos, values

LINE = "error: params.yaml: train.epochs = 'many': must be a whole number\n"


def verdict(answer="error", status=1, out="", err=LINE) -> list[str]:
    case = Case("x", lambda tree: None, "epochs", answer)
    return faults(case, Answered(status, out, err, 0.1), 20)


@pytest.mark.parametrize(
    ("answer", "status", "out", "err"),
    [
        ("error", 1, "", LINE),
        ("error", 1, "", f"warning: 03.png has no caption\n{LINE}"),
        ("note", 0, "warning: train.epochs is high\n", ""),
        ("said", 0, "warning: train.epochs is high\n", ""),
        ("said", 1, "", LINE),
        ("fine", 0, "", ""),
        ("sound", 0, "", ""),
        ("sound", 2, "", LINE),
    ],
)
def test_what_holds(answer, status, out, err):
    assert verdict(answer, status, out, err) == []


@pytest.mark.parametrize(
    ("fault", "answer", "status", "out", "err"),
    [
        ("hangs", "sound", None, "", ""),
        ("traceback: ValueError: x", "sound", 1, "", "Traceback (most recent call last):\n  File\nValueError: x\n"),
        ("died of signal 9", "sound", -9, "", ""),
        ("control character", "sound", 1, "", "error: epochs \x1b[31m\n"),
        ("silent", "error", 0, "12 pictures", ""),
        ("silent", "said", 0, "12 pictures", ""),
        ("is refused", "fine", 1, "", LINE),
        ("is refused", "note", 1, "", LINE),
        ("does not match", "error", 1, "", "error: something is wrong\n"),
        ("2 error lines", "error", 1, "", LINE + LINE),
        ("0 error lines", "error", 1, "", "epochs is wrong\n"),
        ("more than a line", "error", 1, "", f"{LINE}  in line 3, epochs\n"),
        ("exit status 3", "error", 3, "", LINE),
    ],
)
def test_what_is_a_fault(fault, answer, status, out, err):
    assert fault in verdict(answer, status, out, err)[0]


def test_a_seed_draws_a_hundred_kills_and_72_typos():
    assert sum(len(chain.kills) for chain in kills.chains(3)) == 100
    assert kills.chains(3) == kills.chains(3) != kills.chains(4)
    assert len(list(typos.cases(3))) == 72
    assert {chain.stage for chain in kills.chains(3)} == set(kills.STAGES)


def test_every_value_of_the_list_is_one_that_the_schema_refuses():
    schema = {"type": "integer", "minimum": 1}
    found = values.wrong(schema)
    assert {"null", ".inf", "1.5", "0", "many", "[1]", "{a: 1}", "true"} <= set(found)
    validator = jsonschema.Draft202012Validator(schema)
    assert not any(validator.is_valid(value) for value in (None, 1.5, 0, "many", [1], {"a": 1}, True))


def test_the_fuzzer_tells_a_picture_and_its_caption_from_the_rest(tmp_path):
    from tests.trials.cases.pictures import picture

    whole = picture()
    (tmp_path / "01.png").write_bytes(whole)
    (tmp_path / "01.txt").write_text("a green house")
    assert fuzz.unusable(tmp_path) == []
    (tmp_path / "01.png").write_bytes(whole[:60])
    (tmp_path / "02.txt").write_text("a fish")
    (tmp_path / "01.heic").write_bytes(whole)
    (tmp_path / "01.txt").write_bytes(fuzz.flipped(b"\xff" * 40, random.Random(0)))
    assert sorted(fuzz.unusable(tmp_path)) == ["01.heic", "01.png", "01.txt", "02.txt"]

"""Two runs side by side, as a notebook and as the terminal get them."""

import pytest

from aclora.core.errors import InputError
from aclora.report.comparison import compare_runs, comparison_texts
from tests.evaluation.test_compare import run, written


@pytest.fixture
def two_projects(tmp_path, monkeypatch):
    """./better has oil and ink, ./plain has oil and fog."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "better/metrics/oil", run(better=1.0))
    written(tmp_path / "better/metrics/ink", run(3))
    written(tmp_path / "plain/metrics/oil", run(method="lora"))
    written(tmp_path / "plain/metrics/fog", run(4))
    return tmp_path


def test_a_notebook_gets_an_object_for_each_style_that_both_have(two_projects):
    found = compare_runs(two_projects / "better", "plain")
    assert list(found) == ["oil"]
    oil = found["oil"]
    rows = {row.score.key: row for row in oil.rows}
    assert (rows["fid"].a, rows["fid"].b) == (40.0, 50.0)
    assert rows["fid"].change == pytest.approx(0.2)
    assert rows["image_reward"].interval == pytest.approx((1, 1))
    assert oil.improvement > 0.2
    assert (oil.a.method, oil.b.method) == ("aclora", "lora")
    assert len(repr(oil)) < 200  # a cell that shows it is not flooded


def test_printed_it_is_the_table(two_projects):
    head, pairs, _, columns, *lines = str(compare_runs("better", "plain")["oil"]).splitlines()
    assert head == "oil: A = better (aclora), B = plain (lora)"
    assert pairs == "  48 pairs of prompt and seed against 30 drawings"
    rows = {line[2:52].strip(): line[52:] for line in lines}
    assert rows["FID ↓"].split() == ["40.000", "50.000", "-10.000", "+20.0%"]
    assert rows["ImageReward ↑"].split()[-3:-1] == ["[+1.000,", "+1.000]"]
    assert columns[52:].split()[:4] == ["A", "B", "A", "−"]
    assert any(
        line.startswith("  average improvement of A over B (FID, CLIP score, DINO score, ImageReward): +")
        for line in lines
    )


def test_what_the_average_leaves_out_is_named_with_the_reason(two_projects):
    rival = run()
    rival.scores["image_reward"] = 0.05
    written(two_projects / "near/metrics/oil", rival)
    text = str(compare_runs("plain", "near")["oil"])
    assert "left out of the average: ImageReward, the rival's 0.05 is too near 0 for a ratio" in text


def test_the_terminal_is_told_what_only_one_has(two_projects):
    oil, rest = comparison_texts("better", "plain")
    assert oil == str(compare_runs("better", "plain")["oil"])
    assert rest == "evaluated in only one of the two: fog, ink"
    assert list(comparison_texts("better", "plain", "oil")) == [oil]


@pytest.mark.parametrize(
    ("style", "message"), [("oli", "style 'oli' .* did you mean 'oil'"), ("ink", "style 'ink' .* there are: oil")]
)
def test_a_style_that_is_not_in_both_is_refused(two_projects, style, message):
    with pytest.raises(InputError, match=message):
        compare_runs("better", "plain", style)


def test_runs_without_a_common_style_are_refused(two_projects):
    written(two_projects / "third/metrics/ink", run())
    with pytest.raises(InputError, match="was not evaluated in both; there are: none"):
        compare_runs("third", "plain")

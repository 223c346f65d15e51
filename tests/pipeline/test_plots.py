"""DVC's plots as a page that works without a network, looked at by a real browser; DVC's table of experiments."""

import re
import shutil
import subprocess

import pytest

from tests.pipeline.conftest import ROOT
from tests.pipeline.test_publish import copied
from tests.programs import needed_browser

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@t")


@pytest.fixture(scope="module")
def project(done, tmp_path_factory):
    """Two styles that have run, in two revisions; of the second DVC reads the files alone."""
    project = copied(done, tmp_path_factory.mktemp("plots") / "project")
    params = project.folder / "params.yaml"
    entry = re.search(r"^  watercolor:\n(?:    .*\n)+", params.read_text(), re.M)[0]
    params.write_text(params.read_text().replace(entry, entry + entry.replace("watercolor", "oil")))
    shutil.copytree(project.folder / "metrics/watercolor", project.folder / "metrics/oil")
    for state in ("first", "second"):
        history = project.folder / "metrics/oil/restarts.csv"
        history.write_text(history.read_text().replace("\n2,", "\n3,") if state == "second" else history.read_text())
        for command in (("add", "-A"), (*IDENTITY, "commit", "-qm", state)):
            assert project.run("git", *command).returncode == 0
    return project


@pytest.fixture(scope="module")
def page(project):
    said = project.run("aclora", "plots", "HEAD", "HEAD~1")
    assert said.returncode == 0, said.stderr
    return project.folder / said.stdout.split()[-1]


def test_it_asks_no_server_for_anything(page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link)[^>]*(?:src|href)=", text)
    assert "metrics/watercolor/loss.csv" in text
    assert text.count("vegaEmbed(") >= 4


def test_a_browser_draws_loss_i_and_p_of_each_style_and_revision(page):
    browser = needed_browser()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    shown = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=120).stdout
    written = re.findall(r"<text[^>]*>([^<]+)</text>", shown)
    for style in ("watercolor", "oil"):
        assert f"metrics/{style}/loss.csv" in written
        assert f"metrics/{style}/restarts.csv" in written
    assert [written.count(name) for name in ("loss", "I", "p", "HEAD", "HEAD~1")] == [2, 2, 2, 4, 4]
    assert 'class="mark-line' in shown


def test_what_files_and_branches_say_is_no_code_of_the_page(project, tmp_path):
    branch = "x<img/src=q/onerror=document.title='owned'></script><script>document.title='owned'</script>"
    history = project.folder / "metrics/watercolor/loss.csv"
    before = history.read_text()
    history.write_text(before.replace("\n2,", "\n2</script><script>document.title='owned'</script>,"))
    assert project.run("git", "branch", branch).returncode == 0
    try:
        assert project.run("aclora", "plots", branch, "--out", str(tmp_path)).returncode == 0
    finally:
        history.write_text(before)
    page = tmp_path / "index.html"
    assert "document.title='owned'" in page.read_text(encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    shown = subprocess.run(
        [needed_browser(), *flags, page.as_uri()], capture_output=True, text=True, timeout=120
    ).stdout
    assert "<title>aclora: plots</title>" in shown
    assert 'class="mark-line' in shown


def test_an_unknown_revision_is_said(done):
    failed = done.run("aclora", "plots", "nowhere")
    assert failed.returncode == 1
    assert "nowhere" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("styles", [1, 2])
def test_the_guides_table_of_experiments_has_its_columns(project, done, styles):
    """The command as docs/guides/experiments.md has it."""
    guide = (ROOT / "docs/guides/experiments.md").read_text(encoding="utf-8")
    keep, drop = re.search(r"--keep '([^']+)'", guide)[1], re.search(r"--drop '([^']+)'", guide)[1]
    shown = (project if styles == 2 else done).run("dvc", "exp", "show", "--csv", "--drop", drop, "--keep", keep)
    assert shown.returncode == 0, shown.stderr
    columns = shown.stdout.splitlines()[0].split(",")
    figures = ("kid", "dino_score", "style_accuracy", "drift")
    files = ["metrics/watercolor/scores.json:", "metrics/oil/scores.json:"] if styles == 2 else [""]
    assert {f"{file}{figure}" for file in files for figure in figures} <= set(columns)
    assert {"Experiment", "aclora.threshold", "aclora.noise", "aclora.restart_on"} <= set(columns)
    assert "base_kid" not in columns

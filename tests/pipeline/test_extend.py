"""The worked examples of docs/extend, followed literally in a finished project."""

import re
import shutil

import pytest

from tests.conftest import ROOT
from tests.pipeline.conftest import Project

BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(done, tmp_path):
    """A copy of the finished project, with the tests' own helpers."""
    shutil.copytree(done.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def follow(project, page):
    """Write the page's files, run its commands, and expect each line of output that it shows, … for anything.

    A file that exists already is one to which the block is added at the end.
    """
    blocks = BLOCK.findall((ROOT / "docs/extend" / page).read_text(encoding="utf-8"))
    assert any(kind == "console" for kind, _, _ in blocks)
    for kind, title, text in blocks:
        if title:
            file = project.folder / title
            file.parent.mkdir(parents=True, exist_ok=True)
            before = file.read_text(encoding="utf-8") if file.exists() else ""
            file.write_text(before + text, encoding="utf-8")
        if kind == "console":
            for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, *shown = step.rstrip("\n").split("\n")
                ran = project.run("bash", "-o", "pipefail", "-c", command)
                assert ran.returncode == 0, (command, ran.stdout + ran.stderr)
                for line in shown:
                    pattern = ".*".join(map(re.escape, line.split("…")))
                    assert re.search(pattern, ran.stdout), (command, line, ran.stdout)


LONG = [pytest.param(page, marks=pytest.mark.slow) for page in ("method.md", "model.md")]


@pytest.mark.parametrize("page", ["metric.md", "stage.md", *LONG])
def test_a_page_can_be_followed_literally(project, page):
    follow(project, page)


@pytest.mark.parametrize(
    ("page", "file", "words"),
    [
        ("method.md", "lora_fa", {"lora_fa.rank": "examples.lora_fa.rank", "`lora_fa`": "`examples.lora_fa`"}),
        ("model.md", "feed_forward", {}),
    ],
)
def test_the_file_outside_the_package_is_the_one_that_the_page_shows(page, file, words):
    blocks = BLOCK.findall((ROOT / "docs/extend" / page).read_text(encoding="utf-8"))
    shown = next(text for _, title, text in blocks if title.endswith(f"/{file}.py"))
    for inside, outside in words.items():
        shown = shown.replace(inside, outside)
    assert (ROOT / f"examples/{file}.py").read_text(encoding="utf-8") == shown

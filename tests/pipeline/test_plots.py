"""DVC's plots as a page that works without a network, looked at by a real browser."""

import re
import subprocess

import pytest

from tests.programs import needed_browser


@pytest.fixture(scope="module")
def page(done):
    said = done.run("aclora", "plots", "HEAD")
    assert said.returncode == 0, said.stderr
    return done.folder / said.stdout.split()[-1]


def test_it_asks_no_server_for_anything(page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link)[^>]*(?:src|href)=", text)
    assert "metrics/watercolor/loss.csv" in text
    assert text.count("vegaEmbed(") >= 2


def test_a_browser_draws_the_curves(page):
    browser = needed_browser()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    shown = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=120).stdout
    assert len(re.findall(r"<(?:svg|canvas)[^>]*class=\"marks\"", shown)) >= 2
    assert 'class="mark-line' in shown


def test_an_unknown_revision_is_said(done):
    failed = done.run("aclora", "plots", "nowhere")
    assert failed.returncode == 1
    assert "nowhere" in failed.stderr
    assert "Traceback" not in failed.stderr

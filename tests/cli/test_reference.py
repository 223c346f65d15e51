"""The reference page of the commands is complete and the same in any terminal."""

import re

import pytest
from typer.main import get_command

from aclora.cli.main import app
from aclora.cli.reference import commands_page


def test_every_command_and_every_option_is_in_it():
    page = commands_page()
    assert re.findall(r"^## aclora (.+)$", page, re.M) == list(get_command(app).commands)
    for name, command in get_command(app).commands.items():
        section = page.split(f"\n## aclora {name}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            shown = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
            (line,) = (line for line in section.splitlines() if re.match(rf"- `{re.escape(shown)}\b(?!-)", line))
            assert line.count(":") >= 1
            assert (
                "[required]" in section.split(line)[1].split("\n- ")[0] or "[required]" in line
            ) == parameter.required
        assert f"aclora {name}" in section.split("```bash\n")[1]


@pytest.mark.parametrize(("columns", "term"), [("40", "dumb"), ("400", "xterm-256color")])
def test_the_terminal_does_not_matter(monkeypatch, columns, term):
    expected = commands_page()
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", term)
    assert commands_page() == expected


def test_its_links_lead_to_its_headings():
    page = commands_page()
    headings = {h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", page, re.M)}
    links = re.findall(r"\]\(#([^)]+)\)", page)
    assert links
    assert set(links) <= headings


def test_it_is_markdown_of_short_lines():
    page = commands_page()
    assert page.endswith("```\n")
    assert not [line for line in page.splitlines() if len(line) > 120 or line != line.rstrip()]
    assert "\b" not in page

"""The commands and their options as a page of the documentation, made from the commands themselves."""

import inspect
import textwrap

import typer
from typer.core import TyperGroup
from typer.main import get_command

from aclora.cli.main import app

WIDTH = 116


def commands_page() -> str:
    """docs/reference/commands.md: every command with its arguments, options and examples, the same in any terminal."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    context = typer.Context(group, info_name="aclora", help_option_names=["-h", "--help"])
    commands = [
        (command, typer.Context(command, info_name=name, parent=context)) for name, command in group.commands.items()
    ]
    parts = [
        "# Commands",
        _filled(f"{group.help} Input that cannot be used is named in one line that begins with `error:`."),
        "\n".join(
            f"- [`aclora {command.name}`](#aclora-{command.name}): {_summary(command)}" for command, _ in commands
        ),
        "## aclora",
        *_parts(group, context, group.get_params(context)),
    ]
    for command, own_context in commands:
        parts += [f"## aclora {command.name}", *_parts(command, own_context, command.params)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _parts(command, context, parameters):
    """The usage, the description, the given parameters and the examples of one command."""
    usage = [context.command_path, *command.collect_usage_pieces(context)]
    description = "" if isinstance(command, TyperGroup) else inspect.cleandoc(command.help or "")
    records = [r for p in parameters if (r := p.get_help_record(context))]
    examples = [line.strip() for line in (command.epilog or "").splitlines()[2:]]
    return [
        f"```text\n{' '.join(usage)}\n```",
        "\n\n".join(_filled(paragraph) for paragraph in description.split("\n\n")),
        "\n".join(_filled(f"- `{name}`: {' '.join(text.split())}", indent="  ") for name, text in records),
        "```bash\n" + "\n".join(examples) + "\n```",
    ]


def _summary(command):
    return inspect.cleandoc(command.help or "").partition("\n")[0]


def _filled(text, indent=""):
    return textwrap.fill(
        " ".join(text.split()), WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )

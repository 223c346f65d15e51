"""Writes what is generated from params.yaml and the code; a test holds every file current.

    python -m docs.generate

params.schema.json lets editors complete and check params.yaml. docs/reference has every knob (knobs.md), every command
(commands.md) and the licence of every locked package (licences.md).
"""

import json
import re
import textwrap
from importlib.metadata import metadata
from pathlib import Path

from aclora.check.sections import SECTIONS, methods
from aclora.cli.reference import commands_page
from aclora.core import discovery, params
from aclora.core.config import OPEN_KNOB, Config, describe
from aclora.core.method import method_named

ROOT = Path(__file__).parents[1]
PARAMS = ROOT / params.FILE
SCHEMA = ROOT / params.SCHEMA
KNOBS = ROOT / "docs/reference/knobs.md"
COMMANDS = ROOT / "docs/reference/commands.md"
LICENCES = ROOT / "docs/reference/licences.md"
# Packages whose own metadata names no licence, and what their LICENSE file is.
UNNAMED = {"huey": "MIT", "skops": "MIT"}


def questions(text: str) -> dict[str, str]:
    """The comment above each name of params.yaml by its dotted path ("train.epochs"), without the rulers (# ──)."""
    out, path, comment = {}, [], []
    for line in text.splitlines():
        words = line.strip()
        if words.startswith("#") and not words.startswith("# ──"):
            comment.append(words[1:].strip())
            continue
        if words and not words.startswith("#"):
            level = (len(line) - len(line.lstrip())) // 2
            path = [*path[:level], words.partition(":")[0]]
            if comment:
                out[".".join(path)] = " ".join(comment)
        comment = []
    return out


def models(file: Path = PARAMS) -> dict[str, type[Config]]:
    """The model of every section by its dotted path, in the file's order; the first style's for all of them."""
    known, values = SECTIONS | methods(), params.read(file)
    found = {}
    for name in values:
        if name == "styles":
            found[f"styles.{next(iter(values['styles']))}"] = params.StyleConfig
        elif name in known:
            found[name] = known[name]
        elif name != "method":
            found |= {path: method_named(path).config_type for path in params.outside_sections(name, values[name])}
    return found


def schema(file: Path = PARAMS) -> dict:
    """The JSON schema of params.yaml: types, ranges and questions of every knob."""
    asked = questions(file.read_text(encoding="utf-8"))
    known = discovery.names("methods")
    properties = {}
    for path, model in models(file).items():
        name, *inner = path.split(".")
        made = section_schema(path, model, asked, file)
        if name == "styles":
            made = {"type": "object", "additionalProperties": made}
        else:
            for part in reversed(inner):
                made = {"type": "object", "properties": {part: made}, "additionalProperties": False}
        before = properties.get(name, {}).get("properties", {})  # of another method in the same package
        if inner and name != "styles":
            made["properties"] = before | made["properties"]
        properties[name] = {"description": asked[name], **made}
    method = {"anyOf": [{"enum": known}, {"type": "string", "pattern": r"\."}]}
    properties["method"] = {"description": asked["method"], **method}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "params.yaml",
        "type": "object",
        "properties": {name: properties[name] for name in params.read(file)},
        "required": ["method", *(name for name in SECTIONS), "styles"],
        "additionalProperties": False,
    }


def section_schema(path: str, model: type[Config], asked: dict[str, str], file: Path = PARAMS) -> dict:
    """The schema of one section, whose knobs carry their questions; those of an open section are the file's."""
    own = model.model_json_schema()
    properties = own.get("properties", {})
    if isinstance(own["additionalProperties"], dict):
        properties = dict.fromkeys(params.value(path, file), own["additionalProperties"]) | properties
    knobs = {
        name: {"description": asked[f"{path}.{name}"], **{k: v for k, v in knob.items() if k != "title"}}
        for name, knob in properties.items()
    }
    return {"type": "object", "properties": knobs, "required": list(knobs), "additionalProperties": False}


def knobs(file: Path = PARAMS) -> str:
    """The reference of all knobs in Markdown: a list a section, in the order of params.yaml."""
    asked = questions(file.read_text(encoding="utf-8"))
    lines = [
        "# Knobs",
        "",
        *wrapped(
            "Every knob of `params.yaml` with its value there, what it may be, and its question. The code has no "
            "defaults: a knob that is missing or unknown is an error that names it."
        ),
        "",
        "*Generated from `params.yaml` and the code that reads it: `python -m docs.generate`.*",
        "",
    ]
    found = models(file)
    for name in params.read(file):
        if name == "method":
            lines += ["## method", "", *wrapped(asked[name]), "", f"- **`method: {params.method(file)}`**", ""]
        for path in (path for path in found if path.partition(".")[0] == name):
            lines += [f"## {'styles' if name == 'styles' else path}", "", *wrapped(asked[name]), ""]
            values = params.value(path, file) or {}
            fields = found[path].model_fields
            for knob in [name for name in values if name not in fields] + list(fields):
                kind = describe(fields[knob]) if knob in fields else OPEN_KNOB
                head = f"- **`{knob}: {written(values[knob])}`** · {kind}  "
                lines += wrapped(head, asked[f"{path}.{knob}"], indent="  ")
            lines += [""] if fields else []
    return "\n".join(lines).rstrip() + "\n"


def licences() -> str:
    """Every package of requirements.lock with its version and licence, as its metadata says."""
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.M)
    lines = [
        "# Licences",
        "",
        *wrapped(
            "What `requirements.lock` installs, each with the licence that the package's metadata names. None of it "
            "is in this repository; `NOTICE` there says more of those that ask for more than a notice."
        ),
        "",
        "*Generated from the installed packages: `python -m docs.generate`.*",
        "",
        "| package | version | licence |",
        "|---|---|---|",
        *(f"| {name} | {version} | {licence(name)} |" for name, version in pins),
    ]
    return "\n".join(lines) + "\n"


def licence(name: str) -> str:
    """A package's licence: its SPDX expression, else its classifiers, else the first line of its licence's text."""
    about = metadata(name)
    kinds = [c.rpartition("::")[2].strip() for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    classified = " / ".join(kind for kind in kinds if kind != "OSI Approved")
    text = next(iter((about.get("License") or "").strip().splitlines()), "")[:80]
    return about.get("License-Expression") or classified or text or UNNAMED[name]


def wrapped(*paragraphs: str, indent: str = "") -> list[str]:
    """Lines of at most 112 characters; all but the first line are indented. Two spaces at an end break the line."""
    out = []
    for text in paragraphs:
        first = indent if out else ""
        lines = textwrap.wrap(text.rstrip(), 110, initial_indent=first, subsequent_indent=indent)
        out += [*lines[:-1], lines[-1] + ("  " if text.endswith("  ") else "")]
    return out


def written(value) -> str:
    """A value as params.yaml has it."""
    return value if isinstance(value, str) else json.dumps(value)


# Every generated file and what makes its content.
FILES = {
    SCHEMA: lambda: json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
    KNOBS: knobs,
    COMMANDS: commands_page,
    LICENCES: licences,
}


def main() -> None:
    for file, content in FILES.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content(), encoding="utf-8")
        print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()

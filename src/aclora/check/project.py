"""The whole project looked at before any work: `aclora check`, `aclora run`, and the stages check and check-style."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aclora.check.networks import check_fit, check_networks
from aclora.check.sections import SECTIONS, methods
from aclora.check.styles import check_style
from aclora.core import params
from aclora.core.errors import InputError, did_you_mean, require
from aclora.core.method import Method, method_named
from aclora.models.sampling import read_prompts

# Knobs whose paths dvc.yaml lists as dependencies: DVC stops where one does not exist.
DEPENDENCIES = (
    "captions.watch",
    "model.watch",
    "data.foreign",
    "train.watch",
    "evaluate.watch_figures",
    "evaluate.watch",
)


@dataclass
class Report:
    """What each style would train on, a line each, and what a user should know before the run."""

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check(styles: list[str] | None = None) -> Report:
    """Read all of the user's that a run of `styles` (None: all) would read.

    That is every section of params.yaml, and every folder, file, module and network that it names; of networks only
    their files' names and headers. Raises `InputError` for the first mistake.
    """
    known = params.styles()
    for name in styles or ():
        if name not in known:
            raise InputError(f"style {name!r} is unknown; {did_you_mean(name, known)}")
    sections = check_parameters()
    prompts = len(read_prompts(Path(sections["generate"].prompts)))
    report = Report()
    for name in known if styles is None else styles:
        line, warnings = check_style(name)
        report.lines.append(f"{line}; {params.method()}, {sections['train'].epochs} epochs; {prompts} prompts")
        report.warnings += warnings
    return report


def check_parameters() -> dict[str, Any]:
    """Every section of params.yaml by its name, the styles' entries and the networks, but not the styles' pictures.

    Raises `InputError` for the first mistake.
    """
    for name in params.styles():
        params.load(f"styles.{name}", params.StyleConfig)
    sections = load_sections()
    name = params.method()
    kind = method_named(name)
    method = kind(params.load(name, kind.config_type))
    for knob in DEPENDENCIES:
        section, _, field_name = knob.partition(".")
        path = getattr(sections[section], field_name)
        if path is not None and not Path(path).exists():
            raise InputError(f"{knob} = {path!r}: no such folder or file; DVC needs one even if no stage reads it")
    check_networks(sections)
    check_fit(sections, method)
    check_signal(kind, name, sections["generate"])
    read_prompts(Path(sections["generate"].prompts))
    return sections


def load_sections() -> dict[str, Any]:
    """Every section by its name, those of methods that do not train too, if they are in the file."""
    others = {name: model for name, model in methods().items() if name in params.read()}
    return {name: params.load(name, model) for name, model in (SECTIONS | others).items()}


def check_signal(method: type[Method], name: str, generate) -> None:
    """`generate.adapter: signal` needs a method that writes one; a method that trains nothing needs no adapter."""
    if generate.adapter == "signal" and method.attach is not Method.attach:
        writes = method.signal is not Method.signal
        require(writes, "generate.adapter", "signal", f"trained: the method {name} writes no signal.safetensors")

"""The whole project looked at before any work: `aclora check`, `aclora run`, and the stages check and check-style."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aclora.check.networks import check_fit, check_networks
from aclora.check.sections import SECTIONS, methods
from aclora.check.styles import check_style
from aclora.core import params
from aclora.core.errors import InputError, did_you_mean, require
from aclora.core.files import require_writable
from aclora.core.method import Method, method_named
from aclora.models.sampling import read_prompts
from aclora.project import workspace
from aclora.project.home import home

# Knobs whose paths dvc.yaml lists as dependencies: DVC stops where one does not exist.
DEPENDENCIES = (
    "captions.watch",
    "model.watch",
    "data.foreign",
    "train.watch",
    "evaluate.watch_figures",
    "evaluate.watch",
)


# Where stages write, and what is remembered of pictures and networks.
PLACES = ("data/captions", "data/generated", "models/adapters", "metrics", ".cache/training", ".cache/features")
PICTURES, NETWORKS = Path(".cache/pictures"), Path(".cache/checked")


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
    require_writable(*(f"{place}/x" for place in PLACES))
    sections = check_parameters()
    prompts = len(read_prompts(Path(sections["generate"].prompts)))
    report = Report()
    for name in known if styles is None else styles:
        line, warnings = check_style(name, home() / PICTURES, home() / NETWORKS)
        report.lines.append(f"{line}; {params.method()}, {sections['train'].epochs} epochs; {prompts} prompts")
        report.warnings += warnings
    for path, command in workspace.untracked_inputs(known if styles is None else styles):
        report.warnings.append(f"{path} is in neither git nor DVC, and experiments would lack it: `{command}`")
    return report


def check_parameters() -> dict[str, Any]:
    """Every section of params.yaml by its name, the styles' entries and the networks, but not the styles' pictures.

    Raises `InputError` for the first mistake.
    """
    for name in params.styles():
        style = params.load(f"styles.{name}", params.StyleConfig)
        if home() != Path.cwd():
            check_copied(name, style)
    sections = load_sections()
    name = params.method()
    kind = method_named(name)
    method = kind(params.load(name, kind.config_type))
    for knob in DEPENDENCIES:
        section, _, field_name = knob.partition(".")
        path = getattr(sections[section], field_name)
        if path is not None and not Path(path).exists():
            raise InputError(f"{knob} = {path!r}: no such folder or file; DVC needs one even if no stage reads it")
    check_networks(sections, home() / NETWORKS)
    check_fit(sections, method)
    check_signal(kind, name, sections["generate"])
    read_prompts(Path(sections["generate"].prompts))
    return sections


def check_copied(name: str, style: params.StyleConfig) -> None:
    """In an experiment's copy of the project: it has the style's folders. Raises `InputError`."""
    for knob in ("pictures", "reference"):
        if not Path(folder := getattr(style, knob)).exists():
            raise InputError(
                f"styles.{name}.{knob} = {folder!r} is not in this experiment's copy of the project, because it is in "
                f"neither git nor DVC: `aclora check` says what to type"
            )


def load_sections() -> dict[str, Any]:
    """Every section by its name, those of methods that do not train too, if they are in the file."""
    others = {name: model for name, model in methods().items() if name in params.read()}
    return {name: params.load(name, model) for name, model in (SECTIONS | others).items()}


def check_signal(method: type[Method], name: str, generate) -> None:
    """`generate.adapter: signal` needs a method that writes one; a method that trains nothing needs no adapter."""
    if generate.adapter == "signal" and method.attach is not Method.attach:
        writes = method.signal is not Method.signal
        require(writes, "generate.adapter", "signal", f"trained: the method {name} writes no signal.safetensors")

"""The contract of a figure: one number that an evaluation reports, what it rests on, and how it is judged.

A figure is a file in this folder: a pure function, and a `Figure` in the module's `FIGURES`. Evaluation, comparison,
champion and reports iterate over `figures()`; no other file names a figure. A module of one's own, named in
`evaluate.figures`, works the same way.
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Literal

from torch import Tensor

from aclora.core.discovery import names, outside
from aclora.core.errors import InputError, printable

ARROWS = {1: " ↑", -1: " ↓", 0: ""}
Role = Literal["adapter", "base", "difference", "without_trigger", "reference"]
KEYS: dict[Role, str] = {  # what a figure's name becomes in scores.json
    "adapter": "{}",
    "base": "base_{}",
    "difference": "{}_minus_base",
    "without_trigger": "drift_{}",
    "reference": "real_{}",
}


@dataclass(frozen=True)
class PictureSet:
    """n pictures as the encoders see them.

    `outputs`: encoder's knob → output → tensor (n, …). "features" (n, d) come from every encoder that is shown
    pictures, "prompts" (n, d) from one that reads their prompts, "scores" (n,) from one that judges both together; an
    encoder may give more. An encoder that is left out is not in it.
    """

    names: list[str]
    prompts: list[str] | None = None
    outputs: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def features(self, encoder: str) -> Tensor:
        """(n, d), as the encoder of this knob gave them."""
        return self.outputs[encoder]["features"]


@dataclass(frozen=True)
class Context:
    """What a set of pictures is compared with.

    `base`: the bare base model's pictures for the same prompts and seeds, in the same order. `real`: the reference,
    which nobody trained on where `held_out`. `labels`: for an encoder that is a classifier, the names of its classes.
    """

    base: PictureSet
    real: PictureSet
    training: PictureSet
    held_out: bool
    style: str
    labels: dict[str, dict[str, list[str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One figure: its function and everything that is said of it elsewhere."""

    name: str  # in scores.json and, where `paired`, the column of per_image.csv
    label: str  # for people; an arrow is added
    better: Literal[-1, 0, 1]  # 1: more is better, -1: less is, 0: neither
    encoder: str  # the knob of `evaluate` that names the network
    # (pictures, context) → a number; where `paired`, a tensor (n,), a value for each picture. None: nothing to measure.
    measure: Callable[[PictureSet, Context], float | Tensor | None]
    place: int  # where it stands in tables; gaps are left for others
    asks: tuple[str, ...] = ("look",)  # what the encoder does for it: look (pictures), read (prompts), score (both)
    of: Literal["generated", "without_trigger"] = "generated"  # which pictures it is measured on
    against: str = "reference"  # what they are compared with: reference, training, prompts, generated, without_trigger
    # A mean over pictures: it has an interval, and two runs are compared pair by pair.
    paired: bool = False
    with_base: bool = True  # is the base model measured too? Not where it is part of the measure.
    # For a paired figure against the reference: (pictures, context) → (m,), each real picture's own mean over the
    # pictures, and its columns in per_reference.csv, the adapter's and the base's.
    per_real: Callable[[PictureSet, Context], Tensor] | None = None
    real_columns: tuple[str, str] = ("adapter", "base")
    # context → what the real pictures score by themselves; None: nothing to measure.
    of_real: Callable[[Context], float | None] | None = None
    # More columns of per_image.csv: (pictures, context) → name → n values.
    columns: Callable[[PictureSet, Context], dict[str, Tensor | list]] | None = None
    # Without an interval: by how much more than `margin` may a new champion be worse? in the figure's own unit, or as a
    # share of the base model's value; None: the figure decides nothing.
    gate: Literal["absolute", "share_of_base"] | None = None
    in_average: bool = False  # one of the four whose average improvement the AC-LoRA paper reports


@dataclass(frozen=True)
class Score:
    """One entry of scores.json: a figure of one set of pictures, or a difference of two sets.

    `role`: adapter · base (the base model's own) · difference (adapter − base, by pairs) · without_trigger (the same
    difference on prompts without the trigger) · reference (the real pictures' own).
    """

    label: str
    better: Literal[-1, 0, 1]
    figure: Figure
    role: Role

    @property
    def key(self) -> str:
        """Its name in scores.json."""
        return key_of(self.figure.name, self.role)

    def rests_on(self, encoders: dict[str, str], counts: dict[str, int]) -> dict:
        """What stands behind it: its encoder's label, and how many pictures were compared with how many others."""
        figure = self.figure
        of = {"without_trigger": "without_trigger", "reference": "reference"}.get(self.role, figure.of)
        against = of if self.role == "without_trigger" and figure.against == "prompts" else figure.against
        return {"encoder": encoders[figure.encoder], of: counts[of], against: counts[against]}


def figures(modules: Iterable[str] = ()) -> dict[str, Figure]:
    """Every figure by its name, as tables show them: this folder's, and those of `modules` by their dotted names.

    Raises `InputError` for a module that cannot be imported or has no FIGURES, and for a name that is there already.
    """
    modules_here = [importlib.import_module(f"aclora.metrics.{name}") for name in names("metrics")]
    found = [figure for module in modules_here for figure in getattr(module, "FIGURES", ())]
    for module in modules:
        found += figures_module(module).FIGURES
    taken = set()
    for figure in found:
        for name in (figure.name, *(figure.real_columns if figure.per_real else ())):
            if name in taken:
                raise InputError(f"evaluate.figures: {name!r} of figure {figure.name!r} is taken; choose another name")
            taken.add(name)
    return {f.name: f for f in sorted(found, key=lambda f: f.place)}


def figures_module(name: str) -> ModuleType:
    """A module of figures from outside this package; `InputError` where there is none."""
    module = outside(name, "evaluate.figures")
    if not hasattr(module, "FIGURES"):
        raise InputError(f"evaluate.figures: {name} has no FIGURES; list its Figure objects under that name")
    found = module.FIGURES
    if not isinstance(found, (list, tuple)) or not all(isinstance(figure, Figure) for figure in found):
        shown = printable(repr(found)[:100])
        raise InputError(f"evaluate.figures: FIGURES = {shown} in {name}, must be a list of Figure objects")
    return module


def key_of(figure: str, role: Role) -> str:
    """The name in scores.json of a figure's value in a role."""
    return KEYS[role].format(figure)


def scores(figures: dict[str, Figure]) -> dict[str, Score]:
    """Every entry that scores.json can have, by its key, as tables show them."""
    called = [f for f in figures.values() if f.of == "generated"]
    uncalled = [f for f in figures.values() if f.of == "without_trigger"]
    pairs = [f for f in called if f.paired and f.with_base]
    found = [Score(f.label + ARROWS[f.better], f.better, f, "adapter") for f in called + uncalled]
    found += [Score(f"{f.label} without trigger, minus base's", 0, f, "without_trigger") for f in pairs]
    found += [Score(f"{f.label} of the real pictures themselves", 0, f, "reference") for f in called if f.of_real]
    found += [Score(f.label + ARROWS[f.better], f.better, f, "base") for f in called if f.with_base]
    found += [Score(f"{f.label}, minus base's", f.better, f, "difference") for f in pairs]
    return {score.key: score for score in found}

"""Generated pictures against real ones: every figure, what made it, and how sure it is."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor

from aclora.core import params
from aclora.core.config import Config, MissingKnob, MustBe
from aclora.core.errors import InputError, did_you_mean, require
from aclora.encoders.contract import Encoder
from aclora.metrics.contract import Context, Figure, PictureSet, Score, figures, figures_module, key_of
from aclora.metrics.contract import scores as every_score
from aclora.metrics.intervals import cluster_interval


class EvaluateConfig(Config):
    """The `evaluate` section of params.yaml.

    Beside the knobs here it has one for each encoder that some figure rests on: a folder, a hub name, or null.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | None] = Field(init=False)

    figures: tuple[str, ...] = Field(strict=False)  # YAML knows lists alone
    watch_figures: str
    watch: str
    reference: Literal["held_out", "training"]
    held_out: Annotated[int, MustBe("between 2 and 100000 pictures")] = Field(ge=2, le=100_000)
    batch_size: int = Field(ge=1, le=10_000)

    @model_validator(mode="after")
    def _check_rules(self):
        knobs = encoder_knobs(self.figures)
        for name, encoder in self.encoders.items():
            known = [*type(self).model_fields, *knobs]
            # null may stay for an encoder whose module `figures` does not name any more
            if name not in knobs and (encoder or difflib.get_close_matches(name, known, cutoff=0.7)):
                raise InputError(f"{name} is unknown; {did_you_mean(name, known)}")
        for knob in knobs:
            if knob not in self.encoders:
                raise MissingKnob(knob, "an encoder's folder, a hub name (owner/name@commit), or null")
            if (name := self.encoders[knob]) and Path(name).exists() and not Path(name).is_relative_to(self.watch):
                raise InputError(
                    f"watch = {self.watch!r}: must be a folder that holds {knob} = {name}, or DVC misses its changes"
                )
        return self

    @property
    def encoders(self) -> dict[str, str | None]:
        """Knob → the folder or hub name of the encoder; None where its figures are left out."""
        return self.__pydantic_extra__ or {}


def encoder_knobs(modules: Sequence[str]) -> list[str]:
    """The knobs of `evaluate` that name an encoder: on each rests a figure of the library's or of `modules`."""
    return list(dict.fromkeys(figure.encoder for figure in figures(modules).values()))


def encoders_of(config: EvaluateConfig, known: dict[str, Figure], cache: Path, device: str) -> dict[str, Encoder]:
    """The encoder of every knob that some figure rests on and that is not null.

    Raises `InputError` where one cannot be found; it says which figures would still be computed without it.
    """
    labels = {}
    for figure in known.values():
        labels.setdefault(figure.encoder, []).append(figure.label.partition(",")[0])
    classes = [c for module in config.figures for c in getattr(figures_module(module), "ENCODERS", ())]
    found = {}
    for knob, own in labels.items():
        if name := config.encoders[knob]:
            rest = ", ".join(label for other, some in labels.items() if other != knob for label in some)
            remedy = f"or set it to null: without {', '.join(own)}, still computed are {rest}"
            found[knob] = Encoder(knob, name, cache, config.batch_size, device, classes, remedy)
    return found


def picture_set(
    encoders: dict[str, Encoder],
    known: dict[str, Figure],
    names: list[str],
    pictures: Sequence[Image.Image],
    prompts: list[str] | None = None,
) -> PictureSet:
    """What the encoders make of n pictures and, where there are any, their prompts, as far as a figure asks for it."""
    outputs = {}
    for knob, encoder in encoders.items():
        asks = {ask for figure in known.values() if figure.encoder == knob for ask in figure.asks}
        outputs[knob] = encoder.outputs(asks, pictures, names, prompts)
    return PictureSet(names, prompts, outputs)


def project_figures() -> dict[str, Figure]:
    """The figures that the project in this folder knows: the library's, and those of its `evaluate.figures`.

    Outside of a project the library's alone. Raises `InputError` where that knob is not a list of modules' names.
    """
    modules = params.value("evaluate.figures") if params.FILE.exists() else []
    listed = isinstance(modules, list) and all(isinstance(name, str) for name in modules)
    require(listed, f"{params.FILE}: evaluate.figures", modules, "a list of modules, [] for none")
    return figures(modules)


@dataclass(frozen=True)
class Evaluation:
    """`scores`: every number with what it is, in a fixed order. `intervals`: 95 % ones of those that are means over
    pictures. `images`: a row for each generated picture. `reals`: a row for each real one."""

    scores: dict[Score, float]
    intervals: dict[Score, tuple[float, float]]
    images: list[dict]
    reals: list[dict]


class _Measured:
    """One set of pictures under the figures: numbers of a whole set, and values (n,) of each picture."""

    def __init__(self, figures: list[Figure], pictures: PictureSet, context: Context):
        figures = [f for f in figures if f.encoder in pictures.outputs]
        self.pictures = pictures
        self.numbers = {f.name: f.measure(pictures, context) for f in figures if not f.paired}
        self.values = {f.name: f.measure(pictures, context) for f in figures if f.paired}  # (n,) each
        self.per_real = {f.name: f.per_real(pictures, context) for f in figures if f.per_real}  # (m,) each
        self.columns = {k: v for f in figures if f.columns for k, v in f.columns(pictures, context).items()}


class _Found:
    """The scores and intervals of an evaluation, each under the entry of its figure and role."""

    def __init__(self, known: dict[str, Figure]):
        self.entries = every_score(known)
        self.scores: dict[Score, float] = {}
        self.intervals: dict[Score, tuple[float, float]] = {}

    def add(self, role, measured, names=None):
        """Every number and mean of one set, or those of `names`."""
        for name, value in measured.numbers.items():
            if names is None or name in names:
                self.number(name, role, value)
        for name, values in measured.values.items():
            if names is None or name in names:
                self._mean(name, role, values, measured.pictures, measured.per_real.get(name))

    def number(self, name, role, value):
        if value is not None:
            self.scores[self.entries[key_of(name, role)]] = value

    def difference(self, name, role, first, second):
        """The mean difference of two sets whose pictures are pairs."""
        per_real = first.per_real[name] - second.per_real[name] if name in first.per_real else None
        self._mean(name, role, first.values[name] - second.values[name], first.pictures, per_real)

    def _mean(self, name, role, values, pictures, per_real):
        entry = self.entries[key_of(name, role)]
        self.scores[entry] = values.mean().item()
        if len(set(pictures.prompts)) > 1:
            self.intervals[entry] = cluster_interval(values, pictures.prompts, per_real)


def evaluate(
    known: dict[str, Figure],
    sets: dict[str, PictureSet],
    real: PictureSet,
    training: PictureSet,
    held_out: bool,
    style: str,
    labels: dict[str, dict[str, list[str]]] | None = None,
) -> Evaluation:
    """Every one of the `known` figures of `sets`, as far as their encoders' outputs are there.

    `sets`: "adapter" and "base", and where there are any the pictures of prompts without the trigger, "plain_adapter"
    and "plain_base"; picture i of a pair has the same prompt and seed.

    `held_out`: nobody trained on the `real` pictures. `labels`: of each encoder that is a classifier its classes.
    """
    called = [f for f in known.values() if f.of == "generated"]
    measured = {}
    for kind, pictures in sets.items():
        plain = kind.startswith("plain_")
        context = Context(sets["plain_base" if plain else "base"], real, training, held_out, style, labels or {})
        more = [f for f in known.values() if f.of == "without_trigger"] if kind == "plain_adapter" else []
        measured[kind] = _Measured([f for f in called if f.with_base] + more, pictures, context)
        if kind == "adapter":
            relative = _Measured([f for f in called if not f.with_base], pictures, context)
    found = _Found(known)
    for role, kind in (("adapter", "adapter"), ("base", "base")):
        found.add(role, measured[kind])
    found.add("adapter", relative)
    measured["adapter"].columns |= relative.values
    context = Context(real, real, training, held_out, style, labels or {})
    for figure in called:
        if figure.of_real and figure.encoder in real.outputs:
            found.number(figure.name, "reference", figure.of_real(context))
    for name in measured["adapter"].values:
        found.difference(name, "difference", measured["adapter"], measured["base"])
    if plain := measured.get("plain_adapter"):
        own = [f.name for f in known.values() if f.of == "without_trigger"]
        for name in (n for n in plain.values if n not in own):
            found.difference(name, "without_trigger", plain, measured["plain_base"])
        for name in own:
            found.add("adapter", plain, [name])
    images = [row for kind, one in measured.items() for row in _rows(kind, one)]
    return Evaluation(found.scores, found.intervals, images, _reals(known, real, measured))


def _rows(kind, one):
    """A row for each picture of one set."""
    n = len(one.pictures.names)
    about = {"set": [kind] * n, "file": one.pictures.names, "prompt": one.pictures.prompts}
    return _table(about | one.values | one.columns)


def _reals(known, real, measured):
    """A row for each real picture; none where no figure says anything of single ones."""
    columns = {}
    for name in measured["adapter"].per_real:
        pair = zip(known[name].real_columns, ("adapter", "base"), strict=True)
        columns |= {column: measured[kind].per_real[name] for column, kind in pair}
    return _table({"file": real.names} | columns) if columns else []


def _table(columns):
    lists = [v.tolist() if isinstance(v, Tensor) else v for v in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]

"""The base of every section of params.yaml, and its errors: one line that names knob, value and bound.

A section is a frozen pydantic model without defaults; it stands beside the code that reads it:

    class LoraConfig(Config):
        rank: int = Field(ge=1)

Rules between knobs are validators that call `require`.
"""

import types
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from aclora.core.errors import InputError, did_you_mean, require

TYPES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
OPEN_KNOB = "a text or null"  # what a knob may be in a section that takes further ones
LONGEST = 255  # bytes: of a file's name, on every common file system
LAST_SEED = 2**32 - 1  # what every generator of random numbers takes
OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


class MustBe(NamedTuple):
    """What an error says of a value out of range, in place of the bare numbers: `Annotated[int, MustBe("…")]`."""

    bound: str


class MissingKnob(InputError):
    """A knob that the section lacks: `knob` is its name, the message says what it may be."""

    def __init__(self, knob: str, description: str):
        super().__init__(f"{knob} is missing: it must be {description}")
        self.knob = knob


class Config(BaseModel):
    """A section of params.yaml: names and types are strict, and every knob must be given.

    Raises `InputError` "knob = value: must be bound" for the first value that does not fit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _as_input_error(type(self), values, error) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            if not field.is_required():
                raise TypeError(f"{cls.__name__}.{name} has a default: params.yaml is the only place of one")

    @model_validator(mode="before")
    @classmethod
    def _check_texts(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Texts are names, paths and words: not empty, and nothing in them that nobody sees."""
        for name, value in values.items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    check_text(name, text)
        return values

    @field_validator("*", mode="before")
    @classmethod
    def _accept_quoted_number(cls, value: Any, info: ValidationInfo) -> Any:
        """'1e-4' in quotes is a number where a number is meant."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, str) and float in _alternatives(annotation):
            try:
                return float(value)
            except ValueError:
                pass
        return value


def check_text(knob: str, text: str) -> None:
    """Raise `InputError` for a text that is empty, too long for a path, or holds characters that nobody sees."""
    unseen = next((c for c in text if not c.isprintable()), None)
    require(unseen is None, knob, text, f"a text without the character {unseen!r}")
    require(bool(text.strip()), knob, text, "a text that is not empty")
    longest = max(text.split("/"), key=len)
    require(len(longest.encode()) <= LONGEST, knob, f"{text[:40]}…", f"at most {LONGEST} bytes long, between two /")


def describe(field: FieldInfo) -> str:
    """What a knob may be, in words: "a whole number, at least 1, or null" or "one of no, bf16, fp16"."""
    kinds, bound = _kinds(field.annotation), _bound(field)
    if not bound:
        return " or ".join(kinds)
    return ", or ".join([f"{kinds[0]} {bound}" if bound.startswith("between") else f"{kinds[0]}, {bound}", *kinds[1:]])


def _as_input_error(model, values, error) -> InputError:
    problems = error.errors(include_url=False)
    for problem in problems:
        if problem["type"] == "extra_forbidden":
            name = problem["loc"][0]
            return InputError(f"{name} is unknown; {did_you_mean(name, model.model_fields)}")
    invalid = [p for p in problems if p["type"] != "missing"]
    if not invalid:
        name = problems[0]["loc"][0]
        return MissingKnob(name, describe(model.model_fields[name]))
    raised = invalid[0].get("ctx", {}).get("error")
    if isinstance(raised, InputError):  # of one of the model's own validators
        return raised
    name = invalid[0]["loc"][0]
    if name not in model.model_fields:  # of an open section
        return InputError(f"{name} = {values[name]!r}: must be {OPEN_KNOB}")
    field = model.model_fields[name]
    out_of_range = any(p["type"] in OUT_OF_RANGE for p in invalid if p["loc"][0] == name)
    kinds = _kinds(field.annotation)
    expected = ", or ".join([_bound(field), *kinds[1:]]) if out_of_range else " or ".join(kinds)
    return InputError(f"{name} = {values[name]!r}: must be {expected}")


def _alternatives(annotation) -> list:
    """The types that an annotation joins by |, without their ranges."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (types.UnionType, Union):
        return [one for part in get_args(annotation) for one in _alternatives(part)]
    return [annotation]


def _kinds(annotation) -> list[str]:
    """The alternatives in words, for instance ["a number", "dynamic"]."""
    out = []
    for part in _alternatives(annotation):
        options = [str(option) for option in get_args(part)]
        if get_origin(part) is Literal:
            out.append(f"one of {', '.join(options)}" if len(options) > 1 else options[0])
        elif get_origin(part) in (list, tuple):
            out.append(f"a list of {_kinds(get_args(part)[0])[0].removeprefix('a ')}s")
        else:
            out.append(TYPES.get(part) or getattr(part, "__name__", str(part)))
    return out


def _bound(field) -> str:
    """The range of a knob in words; empty where it has none."""
    metadata = list(field.metadata)
    for part in get_args(field.annotation):
        if get_origin(part) is Annotated:
            metadata += [m for extra in get_args(part)[1:] for m in getattr(extra, "metadata", [extra])]
    for m in metadata:
        if isinstance(m, MustBe):
            return m.bound
    ge, gt, le, lt = (next((getattr(m, k) for m in metadata if hasattr(m, k)), None) for k in ("ge", "gt", "le", "lt"))
    if (ge is not None and le is not None) or (gt is not None and lt is not None):
        return f"between {ge if gt is None else gt} and {le if lt is None else lt}"
    lower = None if ge is None else "0 or more" if ge == 0 else f"at least {ge}"
    lower = f"above {gt}" if gt is not None else lower
    upper = f"below {lt}" if lt is not None else f"at most {le}" if le is not None else None
    return " and ".join(bound for bound in (lower, upper) if bound)

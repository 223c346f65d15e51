"""What the train stage writes beside an adapter's weights, read back: adapter.json, history.jsonl, signal.json."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aclora.core.errors import InputError
from aclora.core.files import read_json, read_jsonl

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _About(_Checked):
    method: Name
    layers: list[Name]
    size: Annotated[int, Field(ge=1)]


class _Event(_Checked):
    event: Name
    epoch: Annotated[int, Field(ge=1)]


class _Epoch(_Event):
    loss: Finite


class _Signal(_Checked):
    rank: dict[str, Annotated[int, Field(ge=1)]]
    error: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]


class _Restart(_Event):
    """A RESTART of AC-LoRA; the lists have one value for each layer."""

    event: Literal["restart"]
    loss: Finite
    p: Finite
    index: Annotated[int, Field(alias="I")]
    I_A: list[int]
    I_B: list[int]
    kept_A: list[Finite]
    kept_B: list[Finite]
    norm_ratio_A: list[Finite]
    norm_ratio_B: list[Finite]
    probe_before: Positive
    probe_after: Finite


def again(folder: Path) -> str:
    """What to do where the outs of a style's training are damaged: the end of an error."""
    return (
        f"`dvc checkout --force {folder}` brings DVC's copy back, "
        f"`dvc repro --force train-aclora@{folder.name}` trains again"
    )


def read_about(folder: Path) -> dict[str, Any]:
    """adapter.json: method, layers, pictures, size. Raises `InputError` where it is missing or damaged."""
    return _read(folder, "adapter.json", _About)


def read_signal(folder: Path, layers: list[str]) -> dict[str, Any]:
    """signal.json: of each of the layers its rank and the error of the cut. Raises `InputError` as `read_about`."""
    signal = _read(folder, "signal.json", _Signal)
    for key in ("rank", "error"):
        if set(signal[key]) != set(layers):
            raise _damaged(folder / "signal.json", f"{key}: not the layers of adapter.json")
    return signal


def read_history(folder: Path, layers: list[str] | None = None) -> list[dict[str, Any]]:
    """The records of history.jsonl. Raises `InputError` with the line where it is missing or damaged.

    With `layers`, the adapter's, each RESTART has to have what an audit reads of it: a value for every layer.
    """
    file = folder / "history.jsonl"
    try:
        rows = read_jsonl(file, again(folder))
    except FileNotFoundError:
        raise InputError(f"{file} is missing: {again(folder)}") from None
    for number, row in enumerate(rows, 1):
        restart = layers is not None and row.get("event") == "restart"
        schema = _Restart if restart else _Epoch if row.get("event") == "epoch" else _Event
        fault = _fault(schema, row)
        if restart and not fault:
            lists = (k for k, v in row.items() if k in _Restart.model_fields and isinstance(v, list))
            odd = next((k for k in lists if len(row[k]) != len(layers or ()) or not row[k]), None)
            fault = f"{odd}: not one value for each layer of adapter.json" if odd else None
        if fault:
            raise _damaged(file, f"line {number}, {fault}")
    return rows


def _read(folder, name, schema):
    file = folder / name
    try:
        found = read_json(file, again(folder))
    except FileNotFoundError:
        raise InputError(f"{file} is missing: {again(folder)}") from None
    if fault := _fault(schema, found):
        raise _damaged(file, fault)
    return found


def _fault(schema, value):
    """The first field that does not fit and why, or None."""
    try:
        schema.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return ": ".join([*[".".join(str(part)[:80] for part in first["loc"])] * bool(first["loc"]), first["msg"]])
    return None


def _damaged(file, fault):
    return InputError(f"{file} is damaged ({fault}): {again(file.parent)}")

"""Files of tensors, and checks that tensors must pass before a number made of them means anything."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from aclora.core.errors import InputError, printable, quoted
from aclora.core.files import AGAIN, write_atomically


def save_tensors(file: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file in one step, with the usual permissions: same tensors and header, same bytes.

    safetensors' own `save_file` makes files that their owner alone may read. Raises `OSError`.
    """
    raw = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, dict(header or {}) or None)
    write_atomically(file, in_order(raw) if header else raw)


def in_order(raw: bytes) -> bytes:
    """A safetensors file's bytes with its header's keys sorted; the tensors stay as they are.

    The library writes metadata in an order that changes from call to call, but the same adapter must be the same file.
    """
    size = int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of eight
    return len(header).to_bytes(8, "little") + header + raw[8 + size :]


def read_tensors(file: Path, again: str = AGAIN) -> dict[str, Tensor]:
    """The tensors of a safetensors file, each of them finite.

    Raises `InputError` in one line, which ends with what to do (`again`), where there is no whole safetensors file or a
    tensor is not finite.
    """
    if not file.is_file():
        raise InputError(f"{file} is missing: {again}")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, KeyError, ValueError) as error:  # KeyError: a dtype that torch lacks
        raise InputError(f"{file} is no whole safetensors file ({printable(error)[:300]}): {again}") from None
    for key, tensor in tensors.items():
        if not (tensor.double() if tensor.itemsize == 1 else tensor).isfinite().all():
            raise InputError(f"{file}: {quoted(key)} is not finite: {again}")
    return tensors


def finite(
    features: Tensor, names: list[str], what: str = "one of its features", remedy: str = "replace the picture"
) -> Tensor:
    """Features (n, …), unchanged. Raises `InputError` with the first picture's name that has one that is not finite."""
    bad = ~torch.isfinite(features)
    bad = bad.flatten(1).any(1) if bad.ndim > 1 else bad
    if bad.any():
        raise InputError(f"{names[int(bad.nonzero()[0])]}: {what} is not a finite number; {remedy}")
    return features


def all_finite(values: Tensor) -> bool:
    """Is every value a finite number? Their sum answers that of most tensors without another tensor of their size."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def finite_weights(network: nn.Module, name: str = "") -> None:
    """Raise `ValueError` where a weight or buffer of a network is not finite; `name` is the network's."""
    for key, values in network.state_dict().items():
        if values.is_floating_point() and not all_finite(values):
            raise ValueError(f"{f'{name}: ' if name else ''}a value of {key} is not a finite number; fetch it anew")

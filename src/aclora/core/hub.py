"""A network by the name of its folder or, on the hub, as owner/name@commit."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aclora.core.errors import InputError


def hub_name(knob: str, name: str, remedy: str) -> tuple[str, str]:
    """The repository ("owner/name") and the commit of a hub name, owner/name@commit. Raises `InputError`."""
    repository, _, revision = name.partition("@")
    if name.startswith((".", "/")) or repository.count("/") != 1:
        raise InputError(
            f"{knob} = {name!r}: no such folder, and not a hub name (owner/name@commit); name one of these, {remedy}"
        )
    if not revision:
        raise InputError(f"{knob} = {name!r}: no such folder; of a hub name give the commit, {repository}@<commit>")
    return repository, revision


def locate(knob: str, name: str, remedy: str) -> Path:
    """The folder or file that a knob names; a hub name is fetched first.

    `remedy` ends the error's text: what to do where the network cannot be found. Raises `InputError`.
    """
    if Path(name).exists():
        return Path(name)
    owner, revision = hub_name(knob, name, remedy)
    from huggingface_hub import snapshot_download

    configs, weights = ["*.json", "*.txt"], ["model.safetensors", "ImageReward.pt", "pt_inception*.pth"]
    try:
        place = Path(snapshot_download(owner, revision=revision, allow_patterns=configs + weights))
        if not any(list(place.glob(pattern)) for pattern in weights):
            place = Path(snapshot_download(owner, revision=revision, allow_patterns=[*configs, "pytorch_model.bin"]))
        return place
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        include = " ".join(f"'{pattern}'" for pattern in configs + weights)
        raise InputError(
            f"{knob} = {name!r} cannot be fetched from the hub ({first}); on a machine with a network run "
            f"`hf download {owner} --revision {revision} --include {include} --local-dir "
            f"models/encoders/{knob.rpartition('.')[2]}`, put that folder here and name it, {remedy}"
        ) from None


@contextlib.contextmanager
def loading(knob: str, name: Path | str) -> Iterator[None]:
    """Whatever goes wrong inside becomes one line, an `InputError` that names the knob and its value."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # broken JSON, a damaged file, other shapes: each reader has its own kinds of error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{knob} = {str(name)!r} cannot be loaded: {lines[0]}") from None


def complete(model_and_report: Any) -> Any:
    """The model that `from_pretrained(…, output_loading_info=True)` gave, in eval mode.

    Raises `ValueError` where the files lack one of its weights: transformers draws such weights at random.
    """
    model, report = model_and_report
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{len(missing)} of its weights are missing, {missing[0]} for one")
    return model.eval()


def in_batches(compute: Callable[[Sequence], Tensor], items: Sequence, batch: int) -> Tensor:
    """`compute` of `batch` items at a time, concatenated in float32 on the CPU, without gradients."""
    with torch.no_grad():
        return torch.cat([compute(items[i : i + batch]).float().cpu() for i in range(0, len(items), batch)])


def quieten() -> None:
    """Turn off the progress bars of loading, and advice about torchvision, which nothing here needs."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.disable_progress_bar()

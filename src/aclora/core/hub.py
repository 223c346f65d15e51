"""A network by the name of its folder or, on the hub, as owner/name@commit."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from aclora.core.errors import InputError


def hub_name(knob: str, name: str, aid: str) -> tuple[str, str]:
    """The repository ("owner/name") and the commit of a hub name, owner/name@commit. Raises `InputError`."""
    repository, _, revision = name.partition("@")
    if name.startswith((".", "/")) or repository.count("/") != 1:
        raise InputError(f"{knob} = {name!r}: no such folder, and not a hub name (owner/name@commit); {aid}")
    if not revision:
        raise InputError(
            f"{knob} = {name!r}: no such folder; of a hub name give the commit that is meant, {repository}@<commit>"
        )
    return repository, revision


def locate(knob: str, name: str, aid: str) -> Path:
    """The folder (or file) that a knob names, fetched from the hub if it is no folder.

    `aid` ends an error: what to do where the network cannot be had. Raises `InputError`.
    """
    if Path(name).exists():
        return Path(name)
    owner, revision = hub_name(knob, name, aid)
    from huggingface_hub import snapshot_download

    beside, weights = ["*.json", "*.txt"], ["model.safetensors", "ImageReward.pt", "pt_inception*.pth"]
    try:
        place = Path(snapshot_download(owner, revision=revision, allow_patterns=beside + weights))
        if not any(list(place.glob(pattern)) for pattern in weights):
            place = Path(snapshot_download(owner, revision=revision, allow_patterns=[*beside, "pytorch_model.bin"]))
        return place
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        wanted = " ".join(f"'{pattern}'" for pattern in beside + weights)
        raise InputError(
            f"{knob} = {name!r} is not to be had from the hub ({first}); where there is a network run "
            f"`hf download {owner} --revision {revision} --include {wanted} --local-dir "
            f"models/encoders/{knob.rpartition('.')[2]}`, put that folder here and name it, {aid}"
        ) from None


@contextlib.contextmanager
def loading(kind: str, folder: Path) -> Iterator[None]:
    """Whatever goes wrong inside becomes one line, an `InputError` that names the knob and the folder."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # broken JSON, a damaged file, other shapes: each reader has its own kinds of error
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"evaluate.{kind} = {str(folder)!r} cannot be loaded: {said[0]}") from None


def whole(model_and_report: tuple) -> torch.nn.Module:
    """The model that `from_pretrained(…, output_loading_info=True)` gave, in eval mode, if no weight was missing."""
    model, report = model_and_report
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{len(missing)} of its weights are missing, {missing[0]} for one")
    return model.eval()


def in_batches(look: Callable[[list], Tensor], items: Sequence, batch: int) -> Tensor:
    """`look` of so many items at a time, put together on the CPU, without gradients."""
    with torch.no_grad():
        return torch.cat([look(items[i : i + batch]).float().cpu() for i in range(0, len(items), batch)])


def quieten() -> None:
    """No bars while weights load, and no advice about torchvision, which nothing here needs."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.disable_progress_bar()

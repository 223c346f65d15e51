"""A network by the name of its folder or, on the hub, as owner/name@commit."""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from yaml import YAMLError

from aclora.core.errors import InputError
from aclora.core.tensors import finite_weights

WORD = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
REPOSITORY, COMMIT = f"{WORD}/{WORD}", "[0-9a-f]{7,40}"


def hub_name(knob: str, name: str, remedy: str) -> tuple[str, str]:
    """The repository ("owner/name") and the commit of a hub name, owner/name@commit. Raises `InputError`."""
    repository, _, revision = name.partition("@")
    if not re.fullmatch(REPOSITORY, repository):
        raise InputError(
            f"{knob} = {name!r}: no such folder, and not a hub name (owner/name@commit); name one of these, {remedy}"
        )
    if not is_commit(revision):
        raise InputError(
            f"{knob} = {name!r}: no such folder; of a hub name give the commit, {repository}@<commit>, 7 to 40 hex "
            "digits: a branch can move"
        )
    return repository, revision


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit's digest, or its beginning: what cannot move."""
    return re.fullmatch(COMMIT, revision) is not None


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


def cached(repository: str, revision: str | None) -> Path | None:
    """The folder in the hub's cache on this machine; None where the repository was not fetched. Asks no server."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def loading(knob: str, name: Path | str) -> Iterator[None]:
    """Whatever goes wrong inside becomes one line, an `InputError` that names the knob and its value."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # broken JSON, a damaged file, other shapes: each reader has its own kinds of error
        raise InputError(f"{knob} = {str(name)!r} cannot be loaded: {reason(error)}") from None


def reason(error: Exception) -> str:
    """What an error of a library's loading says, in one line; of the commonest ones in our words."""
    if isinstance(error, UnpicklingError) or "weights only" in str(error).lower():
        return "its weights are pickled with more than tensors, and such a file can run code: convert it to safetensors"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if "size mismatch" in str(error) or "ignore_mismatched_sizes" in lines[0]:
        return f"its weights have other shapes than its config.json says{_shapes(str(error))}"
    return lines[0]


def _shapes(text):
    """The first layer of which an error about shapes speaks, in brackets."""
    found = re.search(r"because (\S+) expected shape torch.Size\((.+?)\), but got torch.Size\((.+?)\)", text)
    return f" ({found[1]} is {found[3]}, must be {found[2]})" if found else ""


def fitting(model_and_report: Any) -> Any:
    """The model that `from_pretrained(…, output_loading_info=True)` gave.

    Raises `ValueError` where the files lack one of its weights, which the library draws at random, and where they hold
    more layers than the model has.
    """
    model, report = model_and_report
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{len(missing)} of its weights are missing, {missing[0]} for one")
    own = {re.sub(r"\d+", "#", key) for key in model.state_dict()}
    if more := sorted(key for key in report["unexpected_keys"] if re.sub(r"\d+", "#", key) in own):
        raise ValueError(f"its weights have more layers than its config.json says, {more[0]} for one")
    return model


def complete(model_and_report: Any) -> Any:
    """`fitting`, in eval mode; raises `ValueError` also where a weight is not finite."""
    model = fitting(model_and_report)
    finite_weights(model)
    return model.eval()


def trained_on(folder: Path | str) -> str | None:
    """What a network says that it was trained on: `trained_on` in the head of the README.md in its folder, the form of
    the hub's model cards. None where there is no such file or no such line."""
    file = Path(folder) / "README.md"
    if not file.is_file():
        return None
    from huggingface_hub import metadata_load

    try:
        said = (metadata_load(file) or {}).get("trained_on")
    except (OSError, ValueError, AttributeError, YAMLError):
        return None
    return " ".join(said.split()) if isinstance(said, str) and said.strip() else None


def in_batches(compute: Callable[[Sequence], Tensor], items: Sequence, batch: int) -> Tensor:
    """`compute` of `batch` items at a time, concatenated in float32 on the CPU, without gradients."""
    with torch.no_grad():
        return torch.cat([compute(items[i : i + batch]).float().cpu() for i in range(0, len(items), batch)])


def quieten() -> None:
    """Turn off the progress bars of loading, advice about torchvision, which nothing here needs, and warnings of what
    is an error here."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()

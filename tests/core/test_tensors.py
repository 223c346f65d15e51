"""Files of tensors: the same bytes each time, readable for all whom the umask lets, and whole and finite when read."""

import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from aclora.core.errors import InputError
from aclora.core.tensors import read_tensors, save_tensors

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(2, dtype=torch.float16), "n": torch.arange(3)}
HEADER = {"format": "pt", "trigger": "zxq style", "style": "fog", "method": "aclora"}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_the_usual_ones(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_tensors(tmp_path / "a.safetensors", TENSORS)
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == mode


def test_the_same_tensors_are_the_same_bytes(tmp_path):
    file, written = tmp_path / "new/a.safetensors", set()
    for _ in range(20):
        save_tensors(file, TENSORS, HEADER)
        written.add(file.read_bytes())
    assert len(written) == 1
    with safe_open(file, "pt") as found:
        assert found.metadata() == HEADER
    assert all(torch.equal(v, TENSORS[k]) for k, v in read_tensors(file).items())
    save_tensors(file, TENSORS)
    assert file.read_bytes() == save(TENSORS)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "is missing: do this"),
        ("cut", "is no whole safetensors file .*: do this"),
        ("a folder", "is missing: do this"),
        ("not finite", "'b' is not finite: do this"),
        ("small floats", "'c' is not finite: do this"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, how, said):
    file = tmp_path / "a.safetensors"
    if how == "cut":
        file.write_bytes(save(TENSORS)[:-3])
    if how == "a folder":
        file.mkdir()
    if how == "not finite":
        save_file(TENSORS | {"b": torch.tensor([1, float("inf")])}, file)
    if how == "small floats":
        save_file(TENSORS | {"c": torch.tensor([1, float("nan")]).to(torch.float8_e4m3fn)}, file)
    with pytest.raises(InputError, match=said) as error:
        read_tensors(file, "do this")
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)

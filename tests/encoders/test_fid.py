"""The FID network: the public file's names, another project's features, the resizing, and files that do not fit."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from aclora.core.errors import InputError
from aclora.encoders.fid import FILE, Inception
from tests.fixtures import shapes


def random_weights() -> dict[str, torch.Tensor]:
    """As the public file, with values under which every branch tells in the features."""
    generator, out = torch.Generator().manual_seed(0), {}
    for name, shape in shapes("inception").items():
        if name.endswith("num_batches_tracked"):
            out[name] = torch.tensor(0)
        elif name.endswith("running_var"):
            out[name] = 0.5 + torch.rand(shape, generator=generator) / 2
        else:
            value = torch.randn(shape, generator=generator)
            scale = (2 / value[0].numel()) ** 0.5 if name.endswith("conv.weight") else 0.1
            out[name] = scale * value + name.endswith("bn.weight")
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inception")
    torch.save(random_weights(), folder / FILE)
    return folder


@pytest.fixture(scope="module")
def net(folder):
    return Inception.from_pretrained(folder)


def test_the_public_file_fits_to_the_last_tensor(net):
    assert {k: tuple(v.shape) for k, v in net.state_dict().items()} == shapes("inception")
    assert len(net.state_dict()) == 566
    assert not net.training


@torch.no_grad()
def test_features_are_those_of_torch_fidelity(net):
    coarse = torch.rand(2, 3, 13, 13, generator=torch.Generator().manual_seed(1)) * 2 - 1
    seen = net(F.interpolate(coarse, size=(299, 299)))
    assert seen.shape == (2, 2048)
    # computed once by torch-fidelity 0.4.0's network with these weights; pytorch-fid 0.3.0's gave the same bits
    expected = torch.tensor(
        [
            [0.34162, 27.10736, 44.33255, 48.19545, 8.43284, 106.10179, 56.03815],
            [0.51162, 25.8443, 42.16819, 49.55203, 7.2078, 105.76818, 56.94869],
        ]
    )
    torch.testing.assert_close(seen[:, ::340], expected, rtol=1e-5, atol=5e-4)


def bicubic(n: int, m: int = 299) -> np.ndarray:
    """(m, n): Keys' cubic kernel with a = −½, stretched when shrinking, that takes n values to m."""
    scale = max(n / m, 1)
    centre = (np.arange(m)[:, None] + 0.5) * n / m
    t = np.abs(np.arange(n) + 0.5 - centre) / scale
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


class Pixels(Inception):
    def forward(self, x):
        return x.flatten(1)


@pytest.mark.parametrize("size", [(64, 100), (500, 310), (299, 299)])
def test_pictures_are_resized_without_rounding(size):
    h, w = size
    picture = np.random.default_rng(0).integers(0, 2, (h, w, 3), np.uint8) * 255  # overshoots at every edge
    resized = np.einsum("ih,hwc,jw->cij", bicubic(h), picture.astype(float), bicubic(w), optimize=True)
    expected = (resized.clip(0, 255) - 128) / 128
    seen = Pixels().look([Image.fromarray(picture)]).view(3, 299, 299).numpy()
    assert np.abs(seen - expected).max() < 1e-5
    assert seen.min() >= -1
    assert seen.max() <= 127 / 128


def test_batches_sizes_and_modes_change_nothing(net):
    pictures = [Image.new("RGB", (20, 30), c) for c in ("red", "white")] + [Image.new("L", (299, 299), 255)]
    seen = net.look(pictures)
    assert seen.dtype == torch.float32
    assert not seen.requires_grad
    torch.testing.assert_close(net.look(pictures, batch=2), seen)
    torch.testing.assert_close(seen[1], seen[2])


def test_safetensors_in_half_precision(folder, net, tmp_path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    save_file(half, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        loaded = Inception.from_pretrained(path)
        assert {p.dtype for p in loaded.parameters()} == {torch.float32}
        torch.testing.assert_close(loaded.fc.weight, net.fc.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(Inception.from_pretrained(folder / FILE).fc.weight, net.fc.weight)


def light() -> dict[str, torch.Tensor]:
    """Tensors of the right shapes that take no room."""
    return {k: torch.zeros(()).expand(shape) for k, shape in shapes("inception").items()}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"Mixed_6c.branch7x7_2.conv.weight": None}, r"Mixed_6c.branch7x7_2.conv.weight has shape nothing, must be \("),
        ({"fc.weight": torch.zeros(1000, 2048)}, r"fc.weight has shape \(1000, 2048\), must be \(1008, 2048\)"),
        ({"AuxLogits.fc.bias": torch.zeros(1)}, r"AuxLogits.fc.bias has shape \(1,\), must be nothing"),
    ],
)
def test_the_first_name_that_does_not_fit_is_named(tmp_path, change, named):
    torch.save({k: v for k, v in (light() | change).items() if v is not None}, tmp_path / FILE)
    with pytest.raises(InputError, match=rf"evaluate.fid = .*{FILE}: {named}"):
        Inception.from_pretrained(tmp_path)


class Code:
    """What a pickle can do to whoever reads it."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "done"),)


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=rf"evaluate.fid = .*no weights there.*{FILE}"):
        Inception.from_pretrained(tmp_path)
    whole, file = tmp_path / "whole.pth", tmp_path / FILE
    torch.save(light(), whole)
    torch.save(light() | {"code": Code(tmp_path)}, file)
    for text in (None, whole.read_bytes()[:-2000], b"", b"version https://git-lfs.github.com/spec/v1"):
        if text is not None:
            file.write_bytes(text)
        with pytest.raises(InputError, match=rf"evaluate.fid = .*{FILE} is cut short, or holds more than tensors"):
            Inception.from_pretrained(tmp_path)
    assert not (tmp_path / "done").exists()
    (tmp_path / "x.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(InputError, match=r"x.safetensors is cut short"):
        Inception.from_pretrained(tmp_path / "x.safetensors")

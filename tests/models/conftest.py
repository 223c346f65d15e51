"""A tiny model of every family and kind, loaded afresh for each test as the stages load it."""

import pytest

from tests import tiny_sd3, tiny_xl
from tests.conftest import model_at

KINDS = ("sd", "xl", "sd3", "sd3 without T5", "sd3.5")


@pytest.fixture(scope="session")
def folders(tiny_folder, tiny_sd3_folder, tmp_path_factory):
    """Kind → (folder, family)."""
    root = tmp_path_factory.mktemp("kinds")
    old, new = "stable_diffusion", "stable_diffusion_3"
    return {
        "sd": (tiny_folder, old),
        "xl": (tiny_xl.build(root / "xl"), old),
        "sd3": (tiny_sd3_folder, new),
        "sd3 without T5": (tiny_sd3.build(root / "sd3", t5=False), new),
        "sd3.5": (tiny_sd3.build(root / "sd35", later=True), new),
    }


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def model(folders, kind):
    return model_at(*folders[kind])

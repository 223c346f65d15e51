"""Stable Diffusion's two kinds of prediction, and the conditions of XL."""

import json
import shutil

import pytest
import torch

from aclora.core.errors import InputError
from tests.conftest import model_at

TIMES = torch.tensor([0, 100, 500, 900])


def noised(model):
    x, noise = torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, noise, model.noisy(x, noise, TIMES)


def test_noise_prediction_is_told_from_velocity(tiny):
    x, noise, noisy = noised(tiny)
    alpha = tiny.schedule.alphas_cumprod[TIMES].view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy, alpha.sqrt() * x + (1 - alpha).sqrt() * noise)
    tiny.schedule.register_to_config(prediction_type="epsilon")
    assert torch.equal(tiny.target(x, noise, TIMES), noise)
    tiny.schedule.register_to_config(prediction_type="v_prediction")
    torch.testing.assert_close(tiny.target(x, noise, TIMES), alpha.sqrt() * noise - (1 - alpha).sqrt() * x)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_clean_latents_follow_from_either(tiny, kind):
    tiny.schedule.register_to_config(prediction_type=kind)
    x, noise, noisy = noised(tiny)
    found = tiny.clean(tiny.target(x, noise, TIMES), noisy, TIMES)
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-4)
    if kind == "epsilon":  # which says nothing of the picture where there is nothing but noise
        tiny.schedule.alphas_cumprod[900] = 0
        assert not tiny.clean(noise, noisy, TIMES)[3].isfinite().any()


def test_any_other_prediction_is_refused(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "pipeline")
    file = folder / "scheduler/scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "sample"}), encoding="utf-8")
    with pytest.raises(InputError, match=r"^model.name: the scheduler's prediction_type = 'sample': must be epsilon"):
        model_at(folder)


def test_times_are_whole_numbers_drawn_evenly(tiny):
    drawn = tiny.draw_times(8, torch.Generator().manual_seed(3))
    # these bytes name every adapter that was ever trained: other draws would make them all anew
    assert torch.equal(drawn, torch.randint(1000, (8,), generator=torch.Generator().manual_seed(3)))
    assert tiny.times_at(torch.tensor([0.0, 0.25, 0.9999])).tolist() == [0, 250, 999]


def test_xl_is_told_the_pictures_size(folders):
    model = model_at(*folders["xl"])
    text = model.encode_prompts(["a red house", "a boat"], 16)
    assert text["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]] * 2
    assert text["text_embeds"].shape == (2, 32)
    assert set(model_at(*folders["sd"]).encode_prompts(["a boat"], 16)) == {"prompt_embeds"}

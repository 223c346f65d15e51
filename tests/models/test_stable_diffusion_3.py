"""Stable Diffusion 3: the algebra of rectified flow, and diffusers' own scheduler and training."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling
from PIL import Image

from aclora.core.errors import InputError

SHIFT = 3.0  # of the tiny model's schedule


@pytest.fixture
def scheduler():
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT)


def noised(n=5):
    return torch.randn(2, n, 8, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_flow_is_the_straight_line_from_picture_to_noise(tiny_sd3):
    x, noise = noised()
    times = torch.tensor([1000.0, 750.0, 500.0, 100.0, 1.0])
    sigma = (times / 1000).view(-1, 1, 1, 1)
    noisy = tiny_sd3.noisy(x, noise, times)
    torch.testing.assert_close(noisy, (1 - sigma) * x + sigma * noise)
    assert torch.equal(tiny_sd3.target(x, noise, times), noise - x)
    # the target is the line's slope: a step along it by Δσ is the line at σ + Δσ
    further = tiny_sd3.noisy(x, noise, times - 1)
    torch.testing.assert_close(further, noisy - 0.001 * tiny_sd3.target(x, noise, times), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        tiny_sd3.signal_share(times), ((1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)).flatten()
    )


def test_noisy_latents_are_the_schedulers(tiny_sd3, scheduler):
    x, noise = noised()
    times = scheduler.timesteps[[0, 200, 500, 900, 999]]
    torch.testing.assert_close(tiny_sd3.noisy(x, noise, times), scheduler.scale_noise(x, times, noise))


def test_every_time_is_one_of_the_schedulers_with_its_shift(tiny_sd3, scheduler):
    times = tiny_sd3.draw_times(2000, torch.Generator().manual_seed(0))
    assert torch.isin(times, scheduler.timesteps).all()
    even = scheduler.sigmas[500].item()  # in the middle of the schedule, where half of the draws lie on either side
    assert even == pytest.approx(SHIFT * 0.5 / (1 + (SHIFT - 1) * 0.5))
    assert times.median().item() / 1000 == pytest.approx(even, abs=0.03)


def test_times_are_weighted_as_diffusers_own_training_weights_them(tiny_sd3, scheduler):
    theirs = compute_density_for_timestep_sampling(
        "logit_normal", 20_000, logit_mean=0.0, logit_std=1.0, generator=torch.Generator().manual_seed(1)
    )
    theirs = scheduler.timesteps[(theirs * 1000).long()]
    ours = tiny_sd3.draw_times(20_000, torch.Generator().manual_seed(2))
    grid = torch.linspace(0, 1000, 101)
    shares = [(times[:, None] <= grid).double().mean(0) for times in (theirs, ours)]
    assert (shares[0] - shares[1]).abs().max() < 0.02  # Kolmogorov and Smirnov's distance
    uniform = scheduler.timesteps[(torch.rand(20_000) * 1000).long()]
    assert (shares[0] - (uniform[:, None] <= grid).double().mean(0)).abs().max() > 0.05


def test_latents_are_shifted_and_scaled_as_the_pipeline_undoes_it(tiny_sd3):
    picture = Image.new("RGB", (16, 16), "red")
    mean, std = tiny_sd3.encode_pictures([picture], 16)
    pixels = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    with torch.no_grad():
        latent = tiny_sd3.vae.encode(pixels).latent_dist
    torch.testing.assert_close(mean / 1.5305 + 0.0609, latent.mean)
    torch.testing.assert_close(std / 1.5305, latent.std)


def test_a_resolution_that_does_not_fit_is_named(tiny_sd3):
    picture = Image.new("RGB", (64, 64))
    with pytest.raises(InputError, match=r"^train.resolution = 18: must be a multiple of 8, at most 64"):
        tiny_sd3.encode_pictures([picture], 18)
    with pytest.raises(InputError, match=r"^train.resolution = 40: must be at most 32, the model's largest picture$"):
        tiny_sd3.encode_pictures([picture], 40)
    assert tiny_sd3.encode_pictures([picture], 32)[0].shape == (1, 8, 16, 16)
    assert next(iter(tiny_sd3.sample(["a boat"], [torch.Generator()], 32, 1, 1.0))).size == (32, 32)


def test_all_three_text_encoders_speak(tiny_sd3):
    text = tiny_sd3.encode_prompts(["a red house", "a red boat"], 16)
    embeds = text["prompt_embeds"]
    assert embeds.shape == (2, 32 + 256, 72)  # the CLIPs' tokens, then T5's
    for part in (embeds[:, :32, :32], embeds[:, :32, 32:64], embeds[:, 32:]):
        assert not torch.equal(part[0], part[1])
    assert not embeds[:, :32, 64:].any()
    assert text["pooled"].shape == (2, 64)

"""What every family owes the training loop and the stages."""

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from aclora.core.errors import InputError
from aclora.core.images import square
from aclora.lora.export import save_diffusers
from aclora.lora.names import component_of
from aclora.lora.tuner import matching
from aclora.models.sampling import GenerateConfig, load_adapter, sample
from aclora.training.loop import Encoded, TrainConfig, fit, fixed_loss
from tests.conftest import make_method, model_at, section

PICTURES = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
PROMPTS = ["a red house", "a blue boat"]


def latents(model, n=4, seed=0):
    """Clean latents and noise, (n, c, h, w) each, and n times over the whole schedule."""
    mean, _ = model.encode_pictures(PICTURES[:1], model.size)
    x, noise = torch.randn(2, n, *mean.shape[1:], generator=torch.Generator().manual_seed(seed))
    return x, noise, model.times_at((torch.arange(n) + 0.5) / n)


def encoded(model):
    mean, std = model.encode_pictures(PICTURES, model.size)
    return Encoded(mean, std, model.encode_prompts(PROMPTS, model.size))


def test_nothing_of_the_base_trains(model):
    parts = [p for p in model.pipe.components.values() if isinstance(p, nn.Module)]
    assert len(parts) >= 3
    assert not any(part.training for part in parts)
    assert not any(p.requires_grad for part in parts for p in part.parameters())
    assert all(p.dtype == torch.float32 for part in parts for p in part.parameters())
    assert model.network in parts
    assert model.device == torch.device("cpu")


def test_pictures_become_scaled_latents(model):
    assert model.size == 16
    mean, std = model.encode_pictures(PICTURES, 16)
    assert mean.shape == std.shape == (2, model.network.config.in_channels, 8, 8)
    assert (std > 0).all()
    again, _ = model.encode_pictures([square(p, 16) for p in PICTURES], 16)
    torch.testing.assert_close(mean, again)


def test_decoding_is_the_way_back_as_the_pipeline_goes_it(model):
    """The pipeline decodes latents that it is given, when it has no step to do that changes them."""
    x, _, _ = latents(model, 2)
    pixels = model.decode(x.requires_grad_())
    assert pixels.shape == (2, 3, 16, 16)
    pixels.sum().backward()
    assert x.grad.abs().max() > 0
    shown = model.pipe.image_processor.postprocess(pixels.detach(), output_type="pt")
    seen = {}
    model.pipe.image_processor.postprocess = lambda image, **kwargs: seen.setdefault("image", image)
    model.pipe.scheduler.step = lambda prediction, time, sample, **kwargs: (x.detach(),)
    model.pipe(PROMPTS, num_inference_steps=1, height=16, width=16)
    torch.testing.assert_close((seen["image"] / 2 + 0.5).clamp(0, 1), shown)


def test_a_resolution_that_does_not_fit_is_named(model):
    with pytest.raises(InputError, match=r"^train.resolution = 12: must be a multiple of 8, at most 64 \(the model's"):
        model.encode_pictures(PICTURES, 12)


def test_the_network_predicts_under_the_encoded_prompts(model):
    text = model.encode_prompts(PROMPTS, 16)
    assert all(v.dtype == torch.float32 and len(v) == 2 for v in text.values())
    x, _, times = latents(model, 2)
    with torch.no_grad():
        out = model.predict(x, times, text)
        swapped = model.predict(x, times, {k: v.flip(0) for k, v in text.items()})
        later = model.predict(x, times.flip(0), text)
    assert out.shape == x.shape
    assert not torch.equal(out, swapped)
    assert not torch.equal(out, later)


def test_the_clean_latents_follow_from_a_perfect_prediction(model):
    x, noise, times = latents(model)
    found = model.clean(model.target(x, noise, times), model.noisy(x, noise, times), times)
    torch.testing.assert_close(found, x, rtol=1e-3, atol=2e-4)


def test_the_share_of_the_picture_is_that_of_its_variance(model):
    """By regression of noisy latents on clean ones of unit variance."""
    rng = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 5, 40_000, 1, 1, generator=rng)
    times = model.times_at(torch.tensor([0.02, 0.2, 0.5, 0.8, 0.98]))
    noisy = model.noisy(x, noise, times)
    slope = (noisy * x).mean((1, 2, 3)) / x.square().mean((1, 2, 3))
    found = slope.square() / noisy.var((1, 2, 3))
    torch.testing.assert_close(model.signal_share(times), found, rtol=0, atol=0.02)


def test_quantiles_are_those_of_the_times_that_are_drawn(model):
    drawn = model.draw_times(40_000, torch.Generator().manual_seed(0)).double()
    again = model.draw_times(40_000, torch.Generator().manual_seed(0)).double()
    assert torch.equal(drawn, again)
    even = model.times_at((torch.arange(999) + 0.5) / 999).double()
    grid = torch.linspace(even.min(), even.max(), 50, dtype=torch.float64)
    shares = [(times[:, None] <= grid).double().mean(0) for times in (drawn, even)]
    assert (shares[0] - shares[1]).abs().max() < 0.012  # Kolmogorov and Smirnov's distance
    # the ends exist, and both are the schedule's
    ends = model.times_at(torch.tensor([0.0, 1 - 2**-24]))
    assert model.signal_share(ends).min() < 0.01
    assert model.signal_share(ends).max() > 0.99


def test_the_layers_that_get_an_adapter_are_linear_and_named_for_their_network(model):
    found = matching(model.network, model.adapter_layers)
    assert len(found) >= 8
    assert all(isinstance(layer, nn.Linear) for layer in found.values())
    assert component_of(found) == model.component
    assert all(any(f".{n}".endswith(f".{end}") for n in found) for end in model.adapter_layers)
    attention = [n for n, m in model.network.named_modules() if isinstance(m, nn.Linear) and ".attn" in n]
    assert set(attention) - set(found) <= {"transformer_blocks.1.attn.add_q_proj"}


@pytest.mark.parametrize("name", ["aclora", "lora"])
def test_it_trains_samples_saves_and_loads(model, kind, folders, tmp_path, name):
    torch.manual_seed(0)
    knobs = {"max_rank": 4, "restart_every": 3} if name == "aclora" else {"rank": 4}
    method, data = make_method(name, **knobs), encoded(model)
    before = fixed_loss(model, data)
    parameters = method.attach(model.network, model.adapter_layers)
    assert fixed_loss(model, data) == before
    config = section("train", TrainConfig, epochs=6, batch_size=2, learning_rate=1e-2)
    records = list(fit(model, data, method, parameters, config, Accelerator(cpu=True)))
    expected = ["epoch"] * 3 + ["restart"] * (name == "aclora") + ["epoch"] * 3
    assert [r["event"] for r in records] == expected
    assert fixed_loss(model, data) < before
    assert all(b.abs().max() > 0 for _, b in method.factors().values())  # no adapter that nothing depends on

    generate = section("generate", GenerateConfig, num_inference_steps=2)
    trained = next(sample(model, ["red"], [1], generate, 16))
    other = model_at(*folders[kind])
    plain = next(sample(other, ["red"], [1], generate, 16))
    save_diffusers(tmp_path / "adapter.safetensors", method.factors(), {})
    load_adapter(other, tmp_path / "adapter.safetensors")
    loaded = next(sample(other, ["red"], [1], generate, 16))
    assert loaded.tobytes() == trained.tobytes()
    assert plain.tobytes() != trained.tobytes()


def test_a_training_needs_no_more_than_it_keeps(model):
    x, noise, times = latents(model, 2)
    text = model.encode_prompts(PROMPTS, 16)
    with torch.no_grad():
        before, pixels = model.predict(model.noisy(x, noise, times), times, text), model.decode(x)
        model.release(keep_decoder=True)
        assert torch.equal(model.predict(model.noisy(x, noise, times), times, text), before)
        assert torch.equal(model.decode(x), pixels)
        model.release(keep_decoder=False)
        assert torch.equal(model.predict(model.noisy(x, noise, times), times, text), before)
    left = [p for p in model.pipe.components.values() if isinstance(p, nn.Module)]
    assert left == [model.network]


def test_a_model_of_another_family_says_what_it_is(folders):
    for kind, other, said in (
        ("sd3", "stable_diffusion", "is a StableDiffusion3Pipeline without a unet"),
        ("xl", "stable_diffusion_3", "is a StableDiffusionXLPipeline without a transformer"),
    ):
        with pytest.raises(InputError, match=rf"^model.family = '{other}': must be another, .* {said}$"):
            model_at(folders[kind][0], other)


@pytest.mark.parametrize("family", ["stable_diffusion", "stable_diffusion_3"])
def test_a_folder_that_holds_no_model_is_named(tmp_path, family):
    with pytest.raises(InputError, match=r"^model.name = .* cannot be loaded: "):
        model_at(tmp_path, family)


@pytest.mark.parametrize("family", ["stable_difusion", "sampling"])
def test_an_unknown_family_says_which_there_are(tiny_folder, family):
    with pytest.raises(
        InputError, match=rf"^model.family = '{family}' is unknown; .*there are: stable_diffusion, stable_"
    ):
        model_at(tiny_folder, family)


def test_a_family_of_ones_own_is_named_by_its_module(tiny_folder, tmp_path, monkeypatch):
    own = (
        "from aclora.models.stable_diffusion import StableDiffusion\nclass Mine(StableDiffusion): pass\nMODEL = Mine\n"
    )
    (tmp_path / "pkg_of_mine").mkdir()
    (tmp_path / "pkg_of_mine/family.py").write_text(own, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert type(model_at(tiny_folder, "pkg_of_mine.family")).__name__ == "Mine"

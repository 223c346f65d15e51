"""The predicted picture against the true one: exact algebra, what the encoder sees, gradients only where due."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from aclora.core.errors import InputError
from aclora.core.images import to_tensor
from aclora.training.losses import FeatureLoss, Look, load_look
from tests import damage
from tests.conftest import ROOT

MINIATURE = ROOT / "models/miniature"
TIMES = torch.tensor([0, 100, 500, 900])


@pytest.fixture(scope="module")
def look():
    return load_look("dino", str(MINIATURE / "dino"))


@pytest.fixture
def loss(tiny, look):
    return FeatureLoss(tiny, look, 1.0)


def noised(model, n=4, seed=0):
    """Clean latents, noise, noisy latents (n, 4, 8, 8) at TIMES."""
    rng = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, n, 4, 8, 8, generator=rng)
    return x, noise, model.noisy(x, noise, TIMES[:n])


def smooth(w, h, seed=0):
    rng = torch.Generator().manual_seed(seed)
    rough = torch.randint(0, 256, (6, 5, 3), generator=rng, dtype=torch.uint8).numpy()
    return Image.fromarray(rough).resize((w, h), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", ["clip", "dino"])
@pytest.mark.parametrize("side", [16, 64, 100])
def test_pixels_are_seen_as_the_encoder_sees_pictures(kind, side):
    look = load_look(kind, str(MINIATURE / kind))
    pictures = [smooth(side, side, seed) for seed in range(3)]
    seen = look(torch.stack([to_tensor(p) for p in pictures]))
    expected = look.encoder.look(pictures)
    assert F.cosine_similarity(seen, expected).min() > 0.9999
    torch.testing.assert_close(seen, expected, rtol=0.02, atol=0.02)  # but for the rounding to 8 bits after a resize


def test_a_dino_of_the_public_kind_is_cropped_and_normalised_as_there(look, tmp_path):
    folder = shutil.copytree(MINIATURE / "dino", tmp_path / "dino")
    said = (folder / "preprocessor_config.json").read_text(encoding="utf-8")
    said = said.replace("[\n    0.5,\n    0.5,\n    0.5\n  ]", "[0.485, 0.456, 0.406]", 1)
    (folder / "preprocessor_config.json").write_text(said, encoding="utf-8")
    cropping, picture = load_look("dino", str(folder)), smooth(90, 90)
    assert cropping.size == (73, 73)
    assert cropping.crop == (64, 64)
    pixels = to_tensor(picture)[None]
    assert F.cosine_similarity(cropping(pixels), cropping.encoder.look([picture])).item() > 0.9999
    assert F.cosine_similarity(cropping(pixels), look(pixels)).item() < 0.999


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_costs_nothing(tiny, look, kind):
    tiny.schedule.register_to_config(prediction_type=kind)
    loss = FeatureLoss(tiny, look, 1.0)
    x, noise, noisy = noised(tiny)
    perfect = tiny.target(x, noise, TIMES)
    assert abs(loss(perfect, noisy, TIMES, loss.targets(x)).item()) < 1e-5
    assert loss(perfect + 1, noisy, TIMES, loss.targets(x)).item() > 1e-3


def test_descent_on_the_prediction_lowers_it(loss):
    x, _, noisy = noised(loss.model)
    targets, prediction = loss.targets(x), torch.zeros_like(x, requires_grad=True)
    optimizer = torch.optim.Adam([prediction], lr=0.02)
    seen = []
    for _ in range(15):
        optimizer.zero_grad()
        value = loss(prediction, noisy, TIMES, targets)
        value.backward()
        optimizer.step()
        seen.append(value.item())
    assert seen[-1] < 0.5 * seen[0]


def test_gradients_reach_the_prediction_and_no_frozen_part(tiny, look):
    loss = FeatureLoss(tiny, Look(look.encoder.requires_grad_(True).train()), 1.0)
    x, _, noisy = noised(tiny)
    prediction = torch.zeros_like(x, requires_grad=True)
    loss(prediction, noisy, TIMES, loss.targets(x)).backward()
    assert all(g.abs().max() > 0 for g in prediction.grad)
    for part in (tiny.vae, loss.look):
        assert not part.training
        assert all(p.grad is None and not p.requires_grad for p in part.parameters())


def test_each_picture_counts_by_its_share_in_the_noisy_latents(loss):
    x, _, noisy = noised(loss.model)
    targets, prediction = loss.targets(x), torch.zeros_like(x)
    each = torch.stack([loss(*(v[i : i + 1] for v in (prediction, noisy, TIMES, targets))) for i in range(4)])
    torch.testing.assert_close(loss(prediction, noisy, TIMES, targets), each.mean())
    unlike = 1 - F.cosine_similarity(loss.features(loss.model.clean(prediction, noisy, TIMES)), targets)
    torch.testing.assert_close(each, loss.model.schedule.alphas_cumprod[TIMES] * unlike)


def test_the_weight_is_a_factor(tiny, look):
    x, _, noisy = noised(tiny)
    one, three = (FeatureLoss(tiny, look, weight) for weight in (1.0, 3.0))
    args = torch.zeros_like(x), noisy, TIMES, one.targets(x)
    torch.testing.assert_close(three(*args), 3 * one(*args))


def test_targets_do_not_depend_on_the_batch(loss):
    x, _, _ = noised(loss.model)
    assert loss.targets(x).shape == (4, 128)
    assert not loss.targets(x).requires_grad
    torch.testing.assert_close(loss.targets(x, batch=1), loss.targets(x))


def test_it_stays_in_float32_where_the_loop_does_not(loss):
    x, _, noisy = noised(loss.model)
    targets = loss.targets(x)
    prediction = torch.zeros_like(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss(prediction.bfloat16(), noisy, TIMES, targets)
    assert half.dtype == torch.float32
    assert half == loss(prediction, noisy, TIMES, targets)


def test_epsilon_on_a_schedule_that_ends_in_pure_noise_is_refused(tiny, look):
    tiny.schedule.alphas_cumprod[-1] = 0
    FeatureLoss(tiny, look, 1.0)  # of a velocity the picture follows even there
    tiny.schedule.register_to_config(prediction_type="epsilon")
    with pytest.raises(InputError, match=r"^train.feature_loss = 1.0: must be 0"):
        FeatureLoss(tiny, look, 1.0)


def test_a_flow_that_begins_with_pure_noise_is_no_obstacle(tiny_sd3, look):
    loss = FeatureLoss(tiny_sd3, look, 1.0)
    x, noise = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    times = tiny_sd3.times_at(torch.tensor([0.0, 0.3, 0.9]))
    assert times[0] == 1000
    noisy, perfect = tiny_sd3.noisy(x, noise, times), tiny_sd3.target(x, noise, times)
    assert abs(loss(perfect, noisy, times, loss.targets(x)).item()) < 1e-5
    assert loss(perfect + 1, noisy, times, loss.targets(x)).item() > 1e-3


def test_an_encoder_that_cannot_be_had_names_the_knob(tmp_path):
    with pytest.raises(InputError, match=r"^train.feature_encoder = 'no/such/folder': no such folder, and not"):
        load_look("dino", "no/such/folder")
    for kind in ("clip", "dino"):
        with pytest.raises(
            InputError, match=rf"^train.feature_encoder = .* cannot be loaded: .*; name the folder of a {kind}"
        ):
            load_look(kind, str(tmp_path))
    broken = shutil.copytree(MINIATURE / "dino", tmp_path / "dino")
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"^train.feature_encoder = .* cannot be loaded: (?!evaluate)"):
        load_look("dino", str(broken))


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (
            "clip",
            r"train.feature_encoder = '.*/dino' cannot be loaded: .*; name the folder of a clip, or change train.fe",
        ),
        ("dnio", r"train.feature_network = 'dnio' is unknown; did you mean 'dino'\?"),
        (
            "fid",
            r"train.feature_network = 'fid': must be a network whose features pass a gradient: clip, dino, or your",
        ),
    ],
)
def test_the_knob_says_which_network_the_encoder_is(network, said):
    with pytest.raises(InputError, match=f"^{said}"):
        load_look(network, str(MINIATURE / "dino"))


def test_an_encoder_whose_weights_are_no_numbers_is_named(tmp_path):
    folder = shutil.copytree(MINIATURE / "dino", tmp_path / "dino")
    damage.put(float("nan"))(folder / "model.safetensors")
    with pytest.raises(InputError, match=r"^train.feature_encoder = '.*dino' cannot be loaded: a value of .* finite"):
        load_look("dino", str(folder))

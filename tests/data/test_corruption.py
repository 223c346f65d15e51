"""Smaller and worse training sets: exactly so many, the same again under one seed, the originals left alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from aclora.core.errors import InputError
from aclora.core.images import to_tensor
from aclora.data.corruption import DataConfig, attacker, corrupted, limited, noisy, vae_attack
from tests.conftest import section

KINDS = ("captions", "noise", "foreign", "adversarial")
CAPTIONS = [f"caption {i}" for i in range(10)]
FOREIGN = [(Image.new("RGB", (16, 16), (9 * i, 200, 0)), f"foreign {i}") for i in range(12)]


def grey(n=10):
    return [Image.new("RGB", (16, 16), (100 + i, 128, 150 - i)) for i in range(n)]


def drawn(seed=0, size=16):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))


def darken(picture, generator):
    """An attack that shows what it was given."""
    by = int(torch.randint(1, 99, (1,), generator=generator))
    return picture.point(lambda v: v - by)


def config(corrupt="none", **knobs):
    return section("data", DataConfig, **{"corrupt": corrupt, "foreign": "."} | knobs)


def spoil(which="noise", pictures=None, **knobs):
    return corrupted(pictures or grey(), CAPTIONS, config(which, **knobs), FOREIGN, darken)


def shown(pictures):
    return [p.tobytes() for p in pictures]


def changed(pictures, captions):
    """Which of the ten are no longer what they were."""
    return [i for i, p in enumerate(grey()) if pictures[i].tobytes() != p.tobytes() or captions[i] != CAPTIONS[i]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.01, 1), (0.3, 3), (0.5, 5), (1.0, 10)])
def test_the_share_is_kept_to_exactly(kind, share, count):
    pictures, captions, which = spoil(kind, share=share)
    assert len(pictures) == len(captions) == 10
    assert which == sorted(set(which)) == changed(pictures, captions)
    assert len(which) == count


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_gives_one_training_set(kind):
    (a, x, i), (b, y, j), (c, z, k) = spoil(kind), spoil(kind), spoil(kind, seed=1)
    assert (shown(a), x, i) == (shown(b), y, j)
    assert (shown(a), x, i) != (shown(c), z, k)


@pytest.mark.parametrize("kind", KINDS)
def test_the_originals_and_the_global_generator_are_left_alone(kind):
    pictures, captions, foreign = grey(), list(CAPTIONS), list(FOREIGN)
    before, state = shown(pictures), torch.get_rng_state()
    corrupted(pictures, captions, config(kind, share=1.0), foreign, darken)
    assert (shown(pictures), captions, foreign) == (before, CAPTIONS, FOREIGN)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["noise", "adversarial"])
def test_a_larger_share_spoils_the_smaller_ones_pictures_in_the_same_way(kind):
    few, _, which = spoil(kind, share=0.3)
    many, _, more = spoil(kind, share=0.8)
    assert set(which) < set(more)
    assert all(few[i].tobytes() == many[i].tobytes() for i in which)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_chosen_captions_are_passed_round_and_none_comes_back(seed, share):
    pictures, captions, which = spoil("captions", share=share, seed=seed)
    assert shown(pictures) == shown(grey())
    assert all(captions[i] != CAPTIONS[i] for i in which)
    assert sorted(captions[i] for i in which) == sorted(CAPTIONS[i] for i in which)


def test_a_single_chosen_picture_takes_anothers_caption():
    taken = set()
    for seed in range(40):
        _, captions, (i,) = spoil("captions", share=0.1, seed=seed)
        assert captions[i] in set(CAPTIONS) - {CAPTIONS[i]}
        taken.add(captions[i])
    assert len(taken) > 5


def test_the_noises_standard_deviation_is_the_strength():
    clean = Image.new("RGB", (200, 200), (128, 128, 128))
    for strength in (3.0, 16.0):
        noise = np.array(noisy(clean, strength, torch.Generator().manual_seed(0))).astype(float) - 128
        assert noise.std() == pytest.approx(np.hypot(strength, 12**-0.5), rel=0.01)  # rounding adds 1/12 of variance
        assert abs(noise.mean()) < 0.1
    white = noisy(Image.new("RGB", (50, 50), "white"), 16.0, torch.Generator().manual_seed(0))
    assert np.array(white).min() > 150  # what leaves 0…255 does not come in again at the other end


def test_each_picture_has_noise_of_its_own():
    pictures, _, _ = spoil("noise", pictures=[Image.new("RGB", (16, 16), "grey")] * 10, share=1.0)
    assert len(set(shown(pictures))) == 10


def test_foreign_pictures_come_once_each_and_bring_their_captions():
    pictures, captions, which = spoil("foreign", share=1.0)
    pairs = {(p.tobytes(), c) for p, c in zip(pictures, captions, strict=True)}
    assert len(pairs) == len(which) == 10
    assert pairs < {(p.tobytes(), c) for p, c in FOREIGN}


def test_a_limit_keeps_pairs_and_their_order():
    for seed in range(5):
        pictures, captions = limited(grey(), CAPTIONS, config(limit=4, seed=seed))
        places = [CAPTIONS.index(c) for c in captions]
        assert places == sorted(set(places))
        assert len(places) == 4
        assert shown(pictures) == [grey()[i].tobytes() for i in places]
        assert set(captions) < set(limited(grey(), CAPTIONS, config(limit=6, seed=seed))[1])
    assert limited(grey(), CAPTIONS, config())[1] == CAPTIONS


@pytest.fixture
def vae(tiny):
    return tiny.vae


def distance(vae, a, b):
    """How far apart the encoder puts two pictures (3, h, w)."""
    with torch.no_grad():
        x, y = (vae.encode(p[None]).latent_dist.mean for p in (a, b))
    return (x - y).norm().item()


@pytest.mark.parametrize("strength", [4.0, 16.0])
def test_the_attack_stays_within_its_bound_and_beats_noise_of_that_bound(vae, strength):
    clean = to_tensor(drawn())
    rng = torch.Generator().manual_seed(0)
    moved = vae_attack(vae, clean, strength, 10, rng)
    bound = strength / 127.5
    assert (moved - clean).abs().max() <= bound + 1e-6
    assert moved.abs().max() <= 1
    signs = [(clean + bound * torch.randn(clean.shape, generator=rng).sign()).clamp(-1, 1) for _ in range(20)]
    assert distance(vae, moved, clean) > 1.5 * max(distance(vae, noise, clean) for noise in signs)


def test_more_steps_reach_further(vae):
    clean = to_tensor(drawn())
    one, many = (vae_attack(vae, clean, 8.0, steps, torch.Generator().manual_seed(0)) for steps in (1, 20))
    assert distance(vae, many, clean) > distance(vae, one, clean)


def test_the_attack_repeats_itself_and_leaves_the_autoencoder_alone(vae):
    vae.train().requires_grad_(True)
    clean = to_tensor(drawn())
    before = clean.clone()
    with torch.no_grad():  # whatever the caller has switched off
        one, same, other = (vae_attack(vae, clean, 8.0, 5, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(clean, before)
    assert not one.requires_grad
    assert vae.training
    assert all(p.grad is None and p.requires_grad for p in vae.parameters())


@pytest.mark.parametrize("strength", [1.0, 7.9])
def test_an_attacked_picture_is_within_the_bound_in_8_bits(vae, strength):
    wide = Image.new("RGB", (40, 16))
    wide.paste(drawn(), (12, 0))
    moved = attacker(vae, 16, strength, 5)(wide, torch.Generator().manual_seed(0))
    by = np.array(moved).astype(int) - np.array(drawn())
    assert moved.size == (16, 16)
    assert np.abs(by).max() == int(strength)


def test_the_attack_serves_a_whole_training_set(vae):
    pictures = [drawn(i) for i in range(10)]
    knobs = config("adversarial", share=0.2, strength=8.0)
    out, _, which = corrupted(pictures, CAPTIONS, knobs, attack=attacker(vae, 16, knobs.strength, 3))
    assert [i for i in range(10) if out[i].tobytes() != pictures[i].tobytes()] == which
    assert len(which) == 2


@pytest.mark.parametrize(
    "change",
    [{"limit": 5}, {"corrupt": "captions"}, {"share": 0.6}, {"strength": 40.0}, {"seed": 3}],
    ids=lambda c: next(iter(c)),
)
def test_every_data_knob_matters(change):
    def made(knobs):
        pictures, captions, which = corrupted(*limited(grey(), CAPTIONS, knobs), knobs, FOREIGN, darken)
        return shown(pictures), captions, which

    assert made(config(**{"corrupt": "noise"} | change)) != made(config("noise"))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"limit": 0}, r"limit = 0: must be at least 1 picture"),
        ({"share": -0.1}, r"share = -0.1: must be between 0 and 1"),
        ({"share": 1.1}, r"share = 1.1: must be between 0 and 1"),
        ({"strength": 0.5}, r"strength = 0.5: must be between 1 and 255"),
        ({"strength": 256.0}, r"strength = 256.0: must be between 1 and 255"),
        ({"seed": -1}, r"seed = -1: must be between 0 and 4294967295"),
        ({"corrupt": "foreign", "foreign": None}, r"foreign = None: must be a folder of captioned pictures"),
        ({"corrupt": "foreign", "foreign": ""}, r"foreign = '': must be a text that is not empty"),
        ({"corrupt": "foreign", "foreign": "no/such"}, r"foreign = 'no/such': must be a folder"),
    ],
)
def test_ranges(knobs, message):
    with pytest.raises(InputError, match=f"^{message}"):
        config(**knobs)


def test_too_few_pictures_are_named():
    with pytest.raises(InputError, match=r"^data.limit = 11: must be at most 10, the style's pictures"):
        limited(grey(), CAPTIONS, config(limit=11))
    with pytest.raises(InputError, match=r"^data.corrupt = 'captions': .* a single picture"):
        corrupted(grey(1), CAPTIONS[:1], config("captions"))
    with pytest.raises(InputError, match=r"^data.share = 0.5: must be at most 0.30, for data.foreign holds 3 pictures"):
        corrupted(grey(), CAPTIONS, config("foreign", share=0.5), FOREIGN[:3])

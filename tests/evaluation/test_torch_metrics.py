"""Every torchmetrics module is its pure function: in batches, after a reset, over processes."""

import json
from datetime import timedelta
from itertools import pairwise

import pytest
import torch
from torch import distributed, multiprocessing

from aclora.core.errors import InputError
from aclora.evaluation import torch_metrics as modules
from aclora.metrics.clip_score import clip_score
from aclora.metrics.cmmd import clip_mmd
from aclora.metrics.copies import copies, own_distance
from aclora.metrics.dino_score import dino_score
from aclora.metrics.drift import drift
from aclora.metrics.fid import frechet_distance
from aclora.metrics.kid import kernel_distance
from aclora.metrics.nfid import normalised_fid


def features(n, seed, d=6):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + 0.2 * seed


def share_of_copies(generated, training, real):
    return copies(generated, training, own_distance(training, real)).double().mean().item()


TRAINING = features(9, 1)
TWO = {"generated": features(20, 0), "real": features(17, 1)}
SETS = [
    (modules.FID, frechet_distance, TWO),
    (modules.KID, kernel_distance, TWO),
    (modules.CMMD, clip_mmd, TWO),
    (modules.DINOScore, dino_score, TWO),
    (modules.NFID, normalised_fid, {"adapter": features(20, 0), "base": features(18, 1), "real": features(17, 2)}),
    (modules.Drift, drift, {"adapter": features(20, 0), "base": features(20, 1)}),
    (
        modules.Copies,
        share_of_copies,
        {
            "generated": torch.cat([TRAINING[:4], TRAINING[4:] + 0.2 * features(5, 0), -features(9, 2)]),
            "training": TRAINING,
            "real": TRAINING[:7] + 0.1 * features(7, 0),  # so near that what is 0.2 off is no copy
        },
    ),
]
IDS = [row[0].__name__ for row in SETS]


def feed(metric, sets, cuts=(0, 1, 8, None)):
    """Uneven batches, set after set in turn."""
    for start, stop in pairwise(cuts):
        for name, of_it in sets.items():
            if len(of_it[start:stop]):
                metric.update(of_it[start:stop], name)
    return metric


def test_every_module_is_tested_here():
    public = {k for k, v in vars(modules).items() if isinstance(v, type) and v.__module__ == modules.__name__}
    assert public == {*IDS, "Sets", "PerImage", "CLIPScore", "ImageReward"}


@pytest.mark.parametrize(("cls", "function", "sets"), SETS, ids=IDS)
def test_batches_give_what_the_function_gives_of_everything(cls, function, sets):
    value = feed(cls(), sets).compute()
    assert value.dtype == torch.float64
    assert value.shape == ()
    assert value.item() == pytest.approx(function(*sets.values()), rel=1e-12)
    assert value.abs() > 1e-3  # and is not nothing


@pytest.mark.parametrize(("cls", "function", "sets"), SETS, ids=IDS)
def test_a_reset_forgets_everything(cls, function, sets):
    first = next(iter(sets))
    metric = feed(cls(), sets | {first: -sets[first]})
    assert metric.compute().item() != pytest.approx(function(*sets.values()))
    metric.reset()
    assert feed(metric, sets).compute().item() == pytest.approx(function(*sets.values()), rel=1e-12)


def test_more_batches_after_compute_are_heeded():
    metric = modules.FID()
    feed(metric, {k: v[:10] for k, v in TWO.items()}).compute()
    feed(metric, {k: v[10:] for k, v in TWO.items()})
    assert metric.compute().item() == pytest.approx(frechet_distance(*TWO.values()), rel=1e-12)


def test_clip_score_and_image_reward_are_means_over_pictures():
    pictures, prompts = features(11, 0), features(11, 1)
    clip, reward = modules.CLIPScore(), modules.ImageReward()
    for part in (slice(0, 1), slice(1, 9), slice(9, None)):
        clip.update(pictures[part], prompts[part])
        reward.update(pictures[part, 0])
    assert clip.compute().item() == pytest.approx(clip_score(pictures, prompts).mean().item(), rel=1e-12)
    assert reward.compute().item() == pytest.approx(sum(pictures[:, 0].tolist()) / 11, rel=1e-12)
    assert clip.compute().dtype == reward.compute().dtype == torch.float64
    for metric in (clip, reward):
        metric.reset()
    clip.update(pictures[:2], prompts[:2])
    reward.update(torch.tensor([-1.0, 4.0]))
    assert clip.compute().item() == pytest.approx(clip_score(pictures, prompts)[:2].mean().item(), rel=1e-12)
    assert reward.compute().item() == 1.5


@pytest.mark.parametrize(("cls", "sets"), [(cls, sets) for cls, _, sets in SETS], ids=IDS)
def test_an_unknown_set_is_told_of_the_known_ones(cls, sets):
    with pytest.raises(InputError, match=f"^into = 'fake': must be one of {', '.join(sets)}$"):
        cls().update(features(3, 0), "fake")


def test_a_feature_that_is_no_number_is_found_at_once():
    bad = features(4, 0)
    bad[2, 3] = torch.nan
    for metric, args in ((modules.FID(), (bad, "real")), (modules.Drift(), (bad, "base"))):
        with pytest.raises(InputError, match=r"^row 2 of the batch: one of its features is not a finite number"):
            metric.update(*args)
    with pytest.raises(InputError, match=r"^picture 1 of the batch: one of its features is not a finite number"):
        modules.ImageReward().update(torch.tensor([1.0, torch.inf]))
    with pytest.raises(InputError, match=r"^picture 2 of the batch: one of its features"):
        modules.CLIPScore().update(bad, features(4, 1))


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")  # torchmetrics says it too
@pytest.mark.parametrize("cls", [row[0] for row in SETS] + [modules.CLIPScore, modules.ImageReward])
def test_nothing_came(cls):
    name = getattr(cls, "names", ["values"])[0]
    with pytest.raises(InputError, match=f"^{cls.__name__}: no {name} came yet: call update before compute$"):
        cls().compute()


def test_one_of_the_sets_did_not_come():
    metric = modules.KID()
    metric.update(features(3, 0), "generated")
    with pytest.raises(InputError, match=r"^KID: no real came yet"):
        metric.compute()
    metric.update(features(1, 0), "real")
    with pytest.raises(InputError, match=r"^KID of 3 and 1 pictures: at least 2"):
        metric.compute()


def test_an_empty_batch_adds_nothing():
    metric = feed(modules.FID(), TWO)
    metric.update(features(0, 0), "real")
    assert metric.compute().item() == pytest.approx(frechet_distance(*TWO.values()), rel=1e-12)


def one_of_two(rank, folder):
    """What each process does with its part: a third to the first, the rest to the second."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    part = slice(None, 6) if rank == 0 else slice(6, None)
    found = {cls.__name__: feed(cls(), {k: v[part] for k, v in s.items()}).compute().item() for cls, _, s in SETS}
    clip = modules.CLIPScore()
    clip.update(features(20, 0)[part], features(20, 1)[part])
    found["CLIPScore"] = clip.compute().item()
    (folder / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    distributed.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path):
    multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    expected = {cls.__name__: function(*sets.values()) for cls, function, sets in SETS}
    expected["CLIPScore"] = clip_score(features(20, 0), features(20, 1)).mean().item()
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == pytest.approx(expected, rel=1e-12)

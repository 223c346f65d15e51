"""The miniature's training helper: learns, and goes on where it was stopped."""

import pytest
import torch
from torch import nn

from miniature.training import Schedule, train


def run(build, *cycles, ema=0.0, decay=0.0, seen=None):
    build.mkdir(exist_ok=True)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def loss_of(step, generator):
        if seen is not None:
            seen.append(net[0].weight.detach().clone())
        x = torch.randn(16, 4, generator=generator)
        return (net(x) - x.sum(1, keepdim=True)).pow(2).mean()

    schedule = Schedule(cycles=cycles, learning_rate=0.02, batch_size=16, decay=decay, warmup=5, ema=ema)
    train("toy", {"net": net}, loss_of, schedule, build, every=1)
    return net, [float(line.split(",")[2]) for line in (build / "toy.csv").read_text().splitlines()]


def test_it_learns(tmp_path):
    _, losses = run(tmp_path / "a", 120)
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_taken_up_again_is_the_run_never_stopped(tmp_path, ema):
    whole, losses = run(tmp_path / "a", 20, ema=ema)
    run(tmp_path / "b", 10, ema=ema)
    resumed, both = run(tmp_path / "b", 20, ema=ema)
    assert both == losses
    assert all(
        torch.equal(x, y) for x, y in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_a_state_of_other_parameters_is_not_taken_for_ones_own(tmp_path):
    run(tmp_path / "a", 10)
    with pytest.raises(SystemExit, match=r"toy.safetensors is of a training with other parameters"):
        run(tmp_path / "a", 20, ema=0.9)


def test_until_the_decay_nothing_depends_on_the_length():
    short, long = (Schedule(cycles=[n], learning_rate=0.1, batch_size=1, decay=0.5, warmup=3) for n in (40, 60))
    assert [short.rate(s) for s in range(20)] == [long.rate(s) for s in range(20)]
    assert short.rate(0) < short.rate(5) == 0.1
    assert short.rate(39) == pytest.approx(0.1 / 20)


def test_a_second_cycle_starts_from_the_first_ones_average_with_a_fresh_optimizer(tmp_path):
    seen = []
    whole, losses = run(tmp_path / "a", 20, 10, ema=0.9, seen=seen)
    first, _ = run(tmp_path / "b", 20, ema=0.9)
    assert torch.equal(seen[20], first[0].weight)
    resumed, both = run(tmp_path / "b", 20, 10, ema=0.9)
    assert both == losses
    assert torch.equal(whole[0].weight, resumed[0].weight)
    two = Schedule(cycles=[20, 10], learning_rate=0.1, batch_size=1, decay=0.5, warmup=3)
    assert two.starts == [0, 20]
    assert two.rate(20) == two.rate(0) < two.rate(25)
    assert two.rate(29) == pytest.approx(0.1 / 5)

"""RESTART in a training loop of one's own, on PEFT models other than a UNet."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from aclora.core.errors import InputError
from aclora.lora.peft import lora_layers, restart_peft
from aclora.lora.restart import restart


class Net(nn.Module):
    """A convolution, two linear layers, and an embedding that no RESTART touches."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, 10)

    def forward(self, x, word):
        return self.second(self.first(self.conv(x).mean((2, 3)) + self.words(word).repeat(1, 2)[:, :12]).tanh())


def adapted(rank=6, alpha=24, **changes):
    """A model with LoRA of that rank, disturbed, and its Adam after one step."""
    torch.manual_seed(0)
    lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["words", "conv", "first", "second"], **changes)
    model = inject_adapter_in_model(lora, Net())
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in parameters:
            p += 0.1 * torch.randn(p.shape)
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    model(torch.randn(2, 3, 5, 5), torch.tensor([1, 2])).square().sum().backward()
    optimizer.step()
    return model, optimizer


def generator():
    return torch.Generator().manual_seed(0)


def test_it_is_restart_on_the_flattened_weights_and_touches_nothing_else():
    model, _ = adapted()
    layers = lora_layers(model)
    assert list(layers) == ["conv", "first", "second"]
    assert layers["conv"][0].dim() == 4
    factors = {name: tuple(m.detach().flatten(1).clone() for m in pair) for name, pair in layers.items()}
    others = {n: p.clone() for n, p in model.named_parameters() if "lora_A" not in n and "lora_B" not in n}
    done = restart_peft(model, 0.8, generator())
    expected = restart(factors, 0.8, generator())
    assert (done.index, done.signal_index.tolist()) == (expected.index, expected.signal_index.tolist())
    for name, pair in layers.items():
        for m, new in zip(pair, expected.factors[name], strict=True):
            assert torch.equal(m.flatten(1), new)
    assert all(torch.equal(dict(model.named_parameters())[n], p) for n, p in others.items())


@pytest.mark.parametrize("rank_pattern", [{}, {"first": 3}])
def test_the_product_mode_keeps_the_functions_signal(rank_pattern):
    """With all but one component kept, and p near one, ΔW hardly changes, whatever lora_alpha is."""
    model, _ = adapted(rank_pattern=rank_pattern)
    x, word = torch.randn(2, 3, 5, 5), torch.tensor([3, 4])
    with torch.no_grad():
        before = model(x, word)
        done = restart_peft(model, 0.9999, generator(), on="product", unify="none")
        after = model(x, word)
    ranks = [pair[0].shape[0] for pair in lora_layers(model).values()]
    assert done.used[:, 0].tolist() <= ranks
    assert not torch.equal(before, after)
    assert (after - before).norm() < 0.2 * before.norm()


@pytest.mark.parametrize("on", ["factors", "product"])
@pytest.mark.parametrize("how", ["keep", "reset", "project"])
def test_each_optimizer_state_treats_the_moments_as_named(on, how):
    model, optimizer = adapted()
    pairs = lora_layers(model)
    before = {n: [optimizer.state[m]["exp_avg"].clone() for m in pair] for n, pair in pairs.items()}
    done = restart_peft(model, 0.7, generator(), optimizer=optimizer, optimizer_state=how, on=on)
    for i, (name, pair) in enumerate(pairs.items()):
        for x, m in enumerate(pair):
            after = optimizer.state[m]["exp_avg"]
            if how == "keep":
                assert torch.equal(after, before[name][x])
            if how == "reset":
                assert not after.any()
            if how == "project":
                assert torch.linalg.matrix_rank(after.flatten(1)) <= done.used[i, x]


def test_training_goes_on():
    model, optimizer = adapted()
    restart_peft(model, 0.7, generator(), optimizer=optimizer, on="product", optimizer_state="project")
    model(torch.randn(2, 3, 5, 5), torch.tensor([1, 2])).square().sum().backward()
    optimizer.step()
    assert all(m.isfinite().all() for pair in lora_layers(model).values() for m in pair)


def test_errors_name_the_cause():
    model, _ = adapted()
    with pytest.raises(InputError, match=r"adapter = 'other': no layer of the model has it"):
        restart_peft(model, 0.8, generator(), adapter="other")
    with pytest.raises(InputError, match=r"p = 1.2: must be between 0 and 1"):
        restart_peft(model, 1.2, generator())
    with pytest.raises(InputError, match=r"optimizer_state = 'reset': must be keep, unless you give the optimizer"):
        restart_peft(model, 0.8, generator(), optimizer_state="reset")
    layer = lora_layers(model)["first"]
    sgd = torch.optim.SGD(layer, lr=0.1, momentum=0.9)
    layer[0].grad = torch.ones_like(layer[0])
    sgd.step()
    with pytest.raises(InputError, match=r"optimizer_state = 'project': must be keep"):
        restart_peft(model, 0.8, generator(), optimizer=sgd, optimizer_state="project")
    with torch.no_grad():
        layer[1][0, 0] = float("nan")
    with pytest.raises(InputError, match="layer first is not finite: lower the learning rate"):
        restart_peft(model, 0.8, generator())

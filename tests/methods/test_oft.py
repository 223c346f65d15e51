"""OFT turns a weight and changes neither lengths nor angles."""

import pytest
import torch

from aclora.core.errors import InputError
from aclora.lora.tuner import matching
from tests.methods.test_methods import attach, disturb, predict


def test_a_trained_weight_is_the_old_one_rotated(tiny):
    before = {n: m.weight.clone() for n, m in matching(tiny.network, tiny.adapter_layers).items()}
    _, parameters = attach(tiny, "oft", block_size=4)
    untouched = predict(tiny)
    disturb(parameters)
    assert not torch.allclose(predict(tiny), untouched, atol=1e-3)
    for name, weight in before.items():
        layer = tiny.network.get_submodule(name)
        width = weight.shape[1]
        eye = torch.eye(width)
        turned = (layer(eye) - layer(torch.zeros(1, width))).T.detach()  # the weight that the layer applies
        torch.testing.assert_close(turned @ turned.T, weight @ weight.T, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(turned, weight, atol=1e-4), name


@pytest.mark.parametrize("size", [5, 64])
def test_blocks_must_divide_every_layers_input(tiny, size):
    with pytest.raises(InputError, match=rf"oft.block_size = {size}: must divide 32, the input of layer .*attn1.to_q"):
        attach(tiny, "oft", block_size=size)

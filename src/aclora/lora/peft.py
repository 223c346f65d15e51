"""RESTART in a training loop of one's own, on any model with LoRA layers of PEFT's: a language model's, for instance.

for epoch in range(1, epochs + 1):
    loss = train_an_epoch(model, optimizer)
    if epoch % 10 == 0 and epoch < epochs:
        p = threshold(loss, 1.0, epoch, epochs)  # of aclora.lora.restart; the loss lies between 0 and 1
        restart_peft(model, p, torch.Generator().manual_seed(epoch), optimizer=optimizer)
"""

from typing import Literal

import torch
from torch import Tensor, nn

from aclora.core.errors import InputError, require
from aclora.lora.restart import Restart, carry_moments, restart


def lora_layers(model: nn.Module, adapter: str = "default") -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """lora_A and lora_B of every layer that has this adapter, by the module's name, in the model's order.

    Linear layers' are (r, k) and (d, r), convolutions' have two axes more. Embeddings, which PEFT keeps elsewhere, are
    left out. Raises `InputError` where there is none.
    """
    found = {
        name: (module.lora_A[adapter].weight, module.lora_B[adapter].weight)
        for name, module in model.named_modules()
        if isinstance(getattr(module, "lora_A", None), nn.ModuleDict) and adapter in module.lora_A
    }
    if not found:
        raise InputError(f"adapter = {adapter!r}: no layer of the model has it; add it with PEFT's LoraConfig first")
    return found


@torch.no_grad()
def restart_peft(
    model: nn.Module,
    p: float,
    generator: torch.Generator,
    *,
    adapter: str = "default",
    optimizer: torch.optim.Optimizer | None = None,
    optimizer_state: Literal["keep", "reset", "project"] = "keep",
    **how,
) -> Restart:
    """Apply RESTART (`lora.restart.restart`, which takes `how`) at threshold `p` to a model's LoRA layers, in place.

    `generator` is the CPU's. The moments of `optimizer`, one of Adam's kind, are dealt with as `optimizer_state` says;
    the other optimizers can only keep theirs. lora_alpha changes nothing here: a factor in ΔW moves no signal index.
    Raises `InputError` where there is no such adapter, p is not within (0, 1), or a weight is not finite.
    """
    require(0 < p < 1, "p", p, "between 0 and 1")
    layers = lora_layers(model, adapter)
    for name, pair in layers.items():
        if not all(m.isfinite().all() for m in pair):
            raise InputError(f"layer {name} is not finite: lower the learning rate")
    _check_moments(optimizer, layers, optimizer_state)
    done = restart({name: tuple(map(_matrix, pair)) for name, pair in layers.items()}, p, generator, **how)
    for name, pair in layers.items():
        for old, new in zip(pair, done.factors[name], strict=True):
            old.copy_(new.reshape(old.shape))
    if optimizer is not None:
        carry_moments(optimizer, layers, done, optimizer_state)
    return done


def _matrix(weight: Tensor) -> Tensor:
    """A convolution's weight as (r, k · height · width) or (d, r · 1 · 1)."""
    return weight.detach().flatten(1)


def _check_moments(optimizer, layers, optimizer_state):
    if optimizer_state == "keep":
        return
    known = "keep, or give the optimizer of Adam's kind whose moments are meant"
    require(optimizer is not None, "optimizer_state", optimizer_state, known)
    states = [optimizer.state[m] for pair in layers.values() for m in pair if optimizer.state.get(m)]
    adams = all({"exp_avg", "exp_avg_sq", "step"} <= set(state) for state in states)
    require(adams, "optimizer_state", optimizer_state, known)

"""RESTART in a training loop of your own, on any model with LoRA layers of PEFT, a language model for instance.

for epoch in range(1, epochs + 1):
    loss = train_an_epoch(model, optimizer)
    if epoch % 10 == 0 and epoch < epochs:
        p = threshold(loss, 1.0, epoch, epochs)  # aclora.lora.restart.threshold; the loss lies between 0 and 1
        restart_peft(model, p, torch.Generator().manual_seed(epoch), optimizer=optimizer)
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aclora.core.errors import InputError, require
from aclora.lora.restart import Restart, carry_moments, restart


def lora_layers(model: nn.Module, adapter: str = "default") -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """lora_A and lora_B of every layer that has this adapter, by the module's name, in the model's order.

    Those of linear layers are (r, k) and (d, r); convolutions have two more axes. Embeddings are left out, as PEFT
    stores their factors elsewhere. Raises `InputError` where no layer has the adapter.
    """
    found = {}
    for name, module in model.named_modules():
        a, b = getattr(module, "lora_A", None), getattr(module, "lora_B", None)
        if isinstance(a, nn.ModuleDict) and isinstance(b, nn.ModuleDict) and adapter in a:
            found[name] = (a[adapter].weight, b[adapter].weight)
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
    **options: Any,
) -> Restart:
    """Apply RESTART at threshold `p` to the LoRA layers of a PEFT model, in place.

    `options` are those of `aclora.restart`: on, noise, refill, unify, floor, ceiling. `generator` is on the CPU. The
    moments of `optimizer`, one of the Adam family, are treated as `optimizer_state` says (see `carry_moments`); other
    optimizers can only keep their state. lora_alpha has no influence: a factor in ΔW changes no signal index.

    Raises `InputError` where no layer has the adapter, p is not between 0 and 1, or a weight is not finite.
    """
    require(0 < p < 1, "p", p, "between 0 and 1")
    layers = lora_layers(model, adapter)
    for name, pair in layers.items():
        if not all(m.isfinite().all() for m in pair):
            raise InputError(f"layer {name} is not finite: lower the learning rate")
    _check_moments(optimizer, layers, optimizer_state)
    done = restart({name: (_as_matrix(a), _as_matrix(b)) for name, (a, b) in layers.items()}, p, generator, **options)
    for name, pair in layers.items():
        for old, new in zip(pair, done.factors[name], strict=True):
            old.copy_(new.reshape(old.shape))
    if optimizer is not None:
        carry_moments(optimizer, layers, done, optimizer_state)
    return done


def _as_matrix(weight: Tensor) -> Tensor:
    """A convolution's weight as (r, k · height · width) or (d, r · 1 · 1)."""
    return weight.detach().flatten(1)


def _check_moments(
    optimizer: torch.optim.Optimizer | None,
    layers: Mapping[str, tuple[nn.Parameter, nn.Parameter]],
    optimizer_state: str,
) -> None:
    if optimizer_state == "keep":
        return
    allowed = "keep, unless you give the optimizer of the Adam family whose moments it treats"
    has_moments = optimizer is not None and all(
        {"exp_avg", "exp_avg_sq", "step"} <= set(state)
        for pair in layers.values()
        for m in pair
        if (state := optimizer.state.get(m))
    )
    require(has_moments, "optimizer_state", optimizer_state, allowed)

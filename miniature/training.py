"""The one loop that trains every part of the miniature."""

import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate: a warm-up, a plateau, and a linear decay over the last `decay` share.

    Until the decay begins nothing depends on `steps`: a run stopped on the plateau may be given
    another length and goes on.
    """

    steps: int
    learning_rate: float
    batch_size: int
    decay: float = 0.4
    warmup: int = 100
    ema: float = 0.0  # decay of the averaged weights that are kept; 0 keeps the weights themselves
    seed: int = 0

    def rate(self, step: int) -> float:
        start = self.steps * (1 - self.decay)
        fade = min(1.0, (self.steps - step) / (self.steps - start)) if self.decay else 1.0
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * fade


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(name, modules: dict, loss_of, schedule: Schedule, build: Path, weight_decay=0.01, every=100):
    """Train `modules` (name → nn.Module) in place by `loss_of(step, generator) -> scalar tensor`.

    The generator is seeded from (seed, step), so that a run taken up again at its last state in
    `build/<name>.safetensors` draws what it would have drawn. The learning curve goes to
    `build/<name>.csv`. Returns the minutes trained.
    """
    parameters = {f"{k}.{n}": p for k, m in modules.items() for n, p in m.named_parameters() if p.requires_grad}
    flat = list(parameters.values())
    optimizer = torch.optim.AdamW(
        flat, schedule.learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
    )
    average = [p.detach().clone() for p in flat] if schedule.ema else None
    state, curve = build / f"{name}.safetensors", build / f"{name}.csv"
    buffers = {f"{k}.{n}": b for k, m in modules.items() for n, b in m.named_buffers()}
    step, minutes = _resume(state, parameters, buffers, optimizer, average)
    start, losses, best = time.monotonic(), [], minutes
    while step < schedule.steps:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + step)
        loss = loss_of(step, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flat, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        losses.append(loss.detach())
        if average and step % 4 == 0:
            weight = 1 - min(schedule.ema, (1 + step) / (40 + step)) ** 4
            torch._foreach_lerp_(average, [p.detach() for p in flat], weight)
        if step % every == 0 or step == schedule.steps:
            minutes = best + (time.monotonic() - start) / 60
            mean = torch.stack(losses).mean().item()
            losses = []
            with curve.open("a", newline="") as file:
                csv.writer(file).writerow([step, f"{minutes:.2f}", f"{mean:.5f}", f"{schedule.rate(step - 1):.2e}"])
            print(f"{name} {step}/{schedule.steps} loss {mean:.4f} {minutes:.1f} min", flush=True)
        if step % (10 * every) == 0 or step == schedule.steps:
            _keep(state, parameters, buffers, optimizer, average, step, minutes)
    if average:
        with torch.no_grad():
            for p, a in zip(flat, average, strict=True):
                p.copy_(a)
    return minutes


def _keep(path, parameters, buffers, optimizer, average, step, minutes):
    tensors = {f"p.{n}": p.detach() for n, p in parameters.items()}
    tensors |= {f"buffer.{n}": b for n, b in buffers.items()}
    for i, (n, p) in enumerate(parameters.items()):
        slot = optimizer.state[p]
        tensors |= {f"m.{n}": slot["exp_avg"], f"v.{n}": slot["exp_avg_sq"]}
        if average:
            tensors[f"a.{n}"] = average[i]
    tensors = {k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}
    part = path.with_suffix(".part")
    save_file(tensors, part, {"progress": json.dumps([step, minutes])})
    part.replace(path)


def _resume(path, parameters, buffers, optimizer, average):
    if not path.exists():
        return 0, 0.0
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        step, minutes = json.loads(file.metadata()["progress"])
    tensors = load_file(path)
    with torch.no_grad():
        for i, (n, p) in enumerate(parameters.items()):
            p.copy_(tensors[f"p.{n}"])
            optimizer.state[p] = {
                "step": torch.tensor(float(step)),
                "exp_avg": torch.empty_like(p).copy_(tensors[f"m.{n}"]),
                "exp_avg_sq": torch.empty_like(p).copy_(tensors[f"v.{n}"]),
            }
            if average:
                average[i].copy_(tensors[f"a.{n}"])
        for n, b in buffers.items():
            b.copy_(tensors[f"buffer.{n}"])
    return step, minutes

"""The one loop that trains every part of the miniature."""

import csv
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate: a warm-up, a plateau, and a linear decay over the last `decay` share.

    `cycles` are lengths in steps. Each but the first begins from the (averaged) weights of the one
    before with a fresh optimizer: so a trained part is taken up again by naming one length more.
    Until a decay begins nothing depends on its cycle's length: a run stopped on the plateau may be
    given another and goes on.
    """

    cycles: tuple[int, ...]
    learning_rate: float
    batch_size: int
    decay: float = 0.4
    warmup: int = 100
    ema: float = 0.0  # decay of the averaged weights that are kept; 0 keeps the weights themselves
    seed: int = 0

    @property
    def steps(self) -> int:
        """Of all cycles together."""
        return sum(self.cycles)

    @property
    def starts(self) -> list[int]:
        """The first step of each cycle."""
        return [sum(self.cycles[:i]) for i in range(len(self.cycles))]

    def rate(self, step: int) -> float:
        cycle = max(i for i, start in enumerate(self.starts) if start <= step)
        length, within = self.cycles[cycle], step - self.starts[cycle]
        fade = min(1.0, (length - within) / (length * self.decay)) if self.decay else 1.0
        return self.learning_rate * min(1.0, (within + 1) / self.warmup) * fade


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(name, modules: dict, loss_of, schedule: Schedule, build: Path, weight_decay=0.01, every=100):
    """Train `modules` (name → nn.Module) in place by `loss_of(step, generator) -> scalar tensor`.

    The generator is seeded from (seed, step), so that a run taken up again at its last state in
    `build/<name>.safetensors` draws what it would have drawn; one of another learning rate, batch
    size, seed or shape ends in `SystemExit`. The learning curve goes to
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
    buffers |= {f"{k}.{n}": p for k, m in modules.items() for n, p in m.named_parameters() if not p.requires_grad}
    kind = {k: v for k, v in asdict(schedule).items() if k not in ("cycles", "decay")}
    step, minutes = _resume(state, parameters, buffers, optimizer, average, kind)
    start, losses, best = time.monotonic(), [], minutes
    while step < schedule.steps:
        if step and step in schedule.starts:
            optimizer.state.clear()
            _settle(flat, average)
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
            ramp = 1 + step - max(s for s in schedule.starts if s < step)
            weight = 1 - min(schedule.ema, ramp / (39 + ramp)) ** 4
            torch._foreach_lerp_(average, [p.detach() for p in flat], weight)
        if step % every == 0 or step == schedule.steps:
            minutes = best + (time.monotonic() - start) / 60
            mean = torch.stack(losses).mean().item()
            losses = []
            with curve.open("a", newline="") as file:
                csv.writer(file).writerow([step, f"{minutes:.2f}", f"{mean:.5f}", f"{schedule.rate(step - 1):.2e}"])
            print(f"{name} {step}/{schedule.steps} loss {mean:.4f} {minutes:.1f} min", flush=True)
        if step % (10 * every) == 0 or step == schedule.steps:
            _keep(state, parameters, buffers, optimizer, average, kind, step, minutes)
    _settle(flat, average)
    return minutes


@torch.no_grad()
def _settle(parameters, average):
    """The averaged weights, where there are any, become the weights."""
    if average:
        torch._foreach_copy_(parameters, average)


def _keep(path, parameters, buffers, optimizer, average, kind, step, minutes):
    tensors = {f"p.{n}": p.detach() for n, p in parameters.items()}
    tensors |= {f"buffer.{n}": b for n, b in buffers.items()}
    for i, (n, p) in enumerate(parameters.items()):
        slot = optimizer.state[p]
        tensors |= {f"m.{n}": slot["exp_avg"], f"v.{n}": slot["exp_avg_sq"]}
        if average:
            tensors[f"a.{n}"] = average[i]
    tensors = {k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}
    part = path.with_suffix(".part")
    save_file(tensors, part, {"progress": json.dumps([step, minutes, kind])})
    part.replace(path)


def _resume(path, parameters, buffers, optimizer, average, kind):
    if not path.exists():
        return 0, 0.0
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        step, minutes, was = json.loads(file.metadata()["progress"])
    tensors = load_file(path)
    shapes = {n: tensors[f"p.{n}"].shape if f"p.{n}" in tensors else None for n in parameters}
    if was != kind or any(shapes[n] != p.shape for n, p in parameters.items()):
        raise SystemExit(f"{path} is of a training with other parameters: restore them, or remove it to start anew")
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

"""AC-LoRA (arXiv 2504.02231): LoRA at a generous rank whose noise is replaced every E epochs.

The last threshold tells how much of the adapter is signal; it is cut down to that at the end.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from aclora.adapters import Lora
from aclora.errors import InputError, require
from aclora.restart import restart, threshold
from aclora.spectra import product_svd, rank_for_energy, truncate


@dataclass(frozen=True)
class Config:
    """The `aclora` section of params.yaml."""

    restart_every: int = 10
    alpha: float = 1.0
    max_rank: int = 16
    optimizer_state: Literal["keep", "reset", "project"] = "keep"
    signal_rank: Literal["energy", "unified", "per_layer"] = "energy"

    def __post_init__(self):
        require(self.restart_every >= 1, "restart_every", self.restart_every, "at least 1 epoch")
        require(self.alpha > 0, "alpha", self.alpha, "above 0")
        require(self.max_rank >= 2, "max_rank", self.max_rank, "at least 2, or nothing could be noise")


class Adapter(Lora):
    """LoRA at `max_rank` with RESTART every `restart_every` epochs, none after the last."""

    rank_knob = "aclora.max_rank"

    def __init__(self, config):
        super().__init__(config)
        self.losses: list[float] = []  # of the epochs since the last RESTART
        self.p: float | None = None
        self.index: int | None = None

    def epoch_end(self, end):
        self.losses.append(end.loss)
        last = end.epoch == end.epochs
        if end.epoch % self.config.restart_every and not (last and self.p is None):
            return None
        mean = sum(self.losses) / len(self.losses)
        p = threshold(mean, self.config.alpha, end.epoch, end.epochs)
        if last:  # no RESTART after the last epoch; a run too short for any still has its threshold
            self.p = p if self.p is None else self.p
            return None
        for name, (a, b) in self.layers.items():
            if not (a.isfinite().all() and b.isfinite().all()):
                raise InputError(
                    f"layer {name} is not finite at the RESTART of epoch {end.epoch}: lower train.learning_rate"
                )
        before = end.probe()
        done = restart(self.factors(), p, end.generator)
        with torch.no_grad():
            for name, pair in self.layers.items():
                for old, new, base in zip(pair, done.factors[name], done.bases[name], strict=True):
                    old.copy_(new)
                    self._moments(end.optimizer.state.get(old), base)
        self.losses, self.p, self.index = [], p, done.index
        return {
            "loss": mean,
            "p": p,
            "I": done.index,
            "I_A": done.signal_index[:, 0].tolist(),
            "I_B": done.signal_index[:, 1].tolist(),
            "kept_A": done.kept[:, 0].tolist(),
            "kept_B": done.kept[:, 1].tolist(),
            "sigma_A": done.sigma[:, 0].tolist(),
            "sigma_B": done.sigma[:, 1].tolist(),
            "norm_ratio_A": done.norm_ratio[:, 0].tolist(),
            "norm_ratio_B": done.norm_ratio[:, 1].tolist(),
            "probe_before": before,
            "probe_after": end.probe(),
            "values": done.values,
        }

    def _moments(self, state, base):
        """What becomes of Adam's moments, which belong to the matrix as it was."""
        if not state or self.config.optimizer_state == "keep":
            return
        if self.config.optimizer_state == "reset":
            for moment in ("exp_avg", "exp_avg_sq", "step"):
                state[moment].zero_()
            return
        mean, base = state["exp_avg"], base.to(state["exp_avg"])  # base (r, I) of the short side
        wide = mean.shape[0] <= mean.shape[1]
        mean.copy_(base @ (base.T @ mean) if wide else (mean @ base) @ base.T)

    def signal(self):
        """The leading components of ΔW itself, by `signal_rank`, and the error of each layer.

        energy: the smallest rank at which every layer keeps the last p of its energy ·
        unified: the I of the last RESTART · per_layer: each layer its own rank for p.
        """
        factors = self.factors()
        spectra = {name: product_svd(*pair)[1] for name, pair in factors.items()}
        ranks = {name: rank_for_energy(d, self.p) for name, d in spectra.items()}
        if self.config.signal_rank == "energy":
            ranks = dict.fromkeys(ranks, max(ranks.values()))
        if self.config.signal_rank == "unified":
            ranks = dict.fromkeys(ranks, self.index or max(ranks.values()))
        cut, errors = {}, {}
        for name, pair in factors.items():
            *cut[name], errors[name] = truncate(*pair, ranks[name])
        report = {"p": self.p, "I": self.index, "by": self.config.signal_rank, "rank": ranks, "error": errors}
        return {name: tuple(pair) for name, pair in cut.items()}, report

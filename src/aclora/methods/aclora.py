"""AC-LoRA (arXiv 2504.02231): LoRA at a generous rank whose noise is replaced every E epochs.

The last threshold says how much of the adapter is signal. At the end a copy is cut to that part.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator

from aclora.core.config import Config, MustBe
from aclora.core.errors import InputError, require
from aclora.lora.restart import carry_moments, restart, threshold
from aclora.lora.spectra import product_svd, rank_for_energy, truncate
from aclora.lora.tuner import LoraTuner


class AcLoraConfig(Config):
    """The `aclora` section of params.yaml."""

    restart_every: Annotated[int, MustBe("between 1 and 1000000 epochs")] = Field(ge=1, le=1_000_000)
    alpha: float = Field(gt=0, le=100)
    max_rank: Annotated[int, MustBe("at least 2, or nothing could be noise")] = Field(ge=2)
    restart_on: Literal["factors", "product"]
    noise: Literal["gaussian", "zero", "structured"]
    refill: Literal["init", "noise"]
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["dynamic"]
    threshold_max: float = Field(gt=0, le=1)
    unify: Literal["max", "mean", "none"]
    min_index: int = Field(json_schema_extra={"minimum": 1})  # its error also names max_rank
    max_index: int | None = Field(ge=1)
    optimizer_state: Literal["keep", "reset", "project"]
    signal_rank: Literal["energy", "unified", "per_layer"]

    @model_validator(mode="after")
    def _check_rules(self):
        least, most = self.min_index, self.max_index
        below = f"at least 1 and below max_rank = {self.max_rank}, or nothing could be noise"
        require(1 <= least < self.max_rank, "min_index", least, below)
        require(most is None or most >= least, "max_index", most, f"at least min_index = {least}, or null")
        if self.restart_on == "factors":
            why = "init where restart_on = 'factors' (there `noise` is the knob), or set restart_on: product"
            require(self.refill == "init", "refill", self.refill, why)
        else:
            why = "gaussian where restart_on = 'product' (there `refill` is the knob), or set restart_on: factors"
            require(self.noise == "gaussian", "noise", self.noise, why)
        if self.threshold != "dynamic":
            bound = f"at most threshold_max = {self.threshold_max}, which would take its place"
            require(self.threshold <= self.threshold_max, "threshold", self.threshold, bound)
        return self


class AcLora(LoraTuner):
    """LoRA at `max_rank` with RESTART every `restart_every` epochs, none after the last.

    The record of a RESTART holds p, I, the probe before and after, and lists with an entry for each layer: I_A and I_B
    (each matrix's own signal index, before they are unified), kept_A and kept_B (share of energy), sigma_A and sigma_B
    (the noise's standard deviation), norm_ratio_A and norm_ratio_B (‖M'‖ / ‖M‖). "values" (layers, 2, R) holds the
    singular values before. With `restart_on: product` all but sigma_ describe ΔW, so A and B have the same.
    """

    config_type = AcLoraConfig

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
        p = self._threshold(mean, end)
        if last:  # no RESTART after the last epoch, but a run too short for any needs a threshold
            self.p = p if self.p is None else self.p
            return None
        finite = torch.stack([a.isfinite().all() & b.isfinite().all() for a, b in self.layers.values()]).tolist()
        if not all(finite):
            name = list(self.layers)[finite.index(False)]
            raise InputError(
                f"layer {name} is not finite at the RESTART of epoch {end.epoch}: lower train.learning_rate"
            )
        before = end.probe()
        config = self.config
        done = restart(
            self.factors(),
            p,
            end.generator,
            on=config.restart_on,
            noise=config.noise,
            refill=config.refill,
            unify=config.unify,
            floor=config.min_index,
            ceiling=config.max_index,
        )
        with torch.no_grad():
            for name, pair in self.layers.items():
                for old, new in zip(pair, done.factors[name], strict=True):
                    old.copy_(new)
        carry_moments(end.optimizer, self.layers, done, config.optimizer_state)
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

    def state(self):
        return {}, {"losses": self.losses, "p": self.p, "index": self.index}

    def restore(self, tensors, values):
        self.losses, self.p, self.index = values["losses"], values["p"], values["index"]

    def _threshold(self, loss, end):
        p = self.config.threshold
        if p == "dynamic":
            p = threshold(loss, self.config.alpha, end.epoch, end.epochs)
        return min(p, self.config.threshold_max)

    def signal(self):
        """ΔW cut to its leading components, and a report with the relative error of each layer.

        `signal_rank` chooses the rank. energy: the lowest at which every layer keeps the last p of its energy;
        unified: the I of the last RESTART; per_layer: each layer's own for p.
        """
        assert self.p is not None, "signal() comes after the last epoch_end()"
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


METHOD = AcLora

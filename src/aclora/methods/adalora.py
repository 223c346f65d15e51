"""AdaLoRA (arXiv 2303.10512): the importance of singular triplets decides how much rank each layer keeps. PEFT's."""

from typing import Any

import torch
from pydantic import Field, model_validator

from aclora.core.config import Config
from aclora.core.errors import require
from aclora.lora.tuner import PeftTuner


class AdaLoraConfig(Config):
    """The `adalora` section of params.yaml."""

    init_r: int = Field(ge=1)
    target_r: int = Field(ge=1)
    warmup: float = Field(ge=0, lt=1)
    final: float = Field(ge=0, lt=1)
    orth_reg_weight: float = Field(ge=0, le=1000)

    @model_validator(mode="after")
    def _check_rules(self):
        require(self.target_r <= self.init_r, "target_r", self.target_r, f"at most init_r = {self.init_r}")
        shares = self.warmup + self.final
        require(shares < 1, "warmup + final", shares, "below 1: both are shares of all steps")
        return self


class AdaLora(PeftTuner):
    """PEFT's AdaLoRA. Its rank allocator runs after every step. The factors include Λ and the scale."""

    config_type = AdaLoraConfig

    rank_knob, prefix = "adalora.init_r", "lora_"

    def peft_config(self, steps: int = 10):
        from peft import AdaLoraConfig

        c = self.config
        return AdaLoraConfig(
            init_r=c.init_r,
            target_r=c.target_r,
            lora_alpha=c.init_r,
            tinit=int(c.warmup * steps),
            tfinal=int(c.final * steps),
            total_step=steps,
            orth_reg_weight=c.orth_reg_weight,
            target_modules=self.targets,
        )

    def attach(self, network, layers):
        parameters = super().attach(network, layers)
        self.tuned = {name: layer for name, layer in network.named_modules() if hasattr(layer, "ranknum")}
        return parameters

    def begin(self, steps):
        from peft.tuners.adalora import RankAllocator

        self.schedule: Any = self.peft_config(steps)  # of PEFT, which declares its fields as optional
        self.schedule.target_modules = set(self.targets)
        self.allocator = RankAllocator(self.network, self.schedule, "default")

    def penalty(self):
        """orth_reg_weight times the mean of ‖P Pᵀ − I‖ and ‖Qᵀ Q − I‖ over all layers: equation 4 of the paper."""
        if not self.config.orth_reg_weight:
            return None
        off = []
        for layer in self.tuned.values():
            p, q = layer.lora_A["default"], layer.lora_B["default"]  # (r, k), (d, r)
            one = torch.eye(len(p), device=p.device)
            off += [(p @ p.T - one).norm(), (q.T @ q - one).norm()]
        return self.config.orth_reg_weight * torch.stack(off).mean()

    def step_end(self, step):
        left = self.schedule.total_step - self.schedule.tfinal - step
        if left >= 0:
            _, pattern = self.allocator.update_and_allocate(self.network, step, force_mask=left == 0)
            self.schedule.rank_pattern = pattern or self.schedule.rank_pattern
        elif self.schedule.rank_pattern:
            self.allocator.mask_using_rank_pattern(self.network, self.schedule.rank_pattern)

    def state(self):
        means = {"ipt": self.allocator.exp_avg_ipt, "unc": self.allocator.exp_avg_unc}
        tensors = {f"{kind}.{name}": v for kind, of in means.items() for name, v in of.items()}
        return tensors, {"rank_pattern": self.schedule.rank_pattern}

    def restore(self, tensors, values):
        self.schedule.rank_pattern = values["rank_pattern"]
        device = next(iter(self.tuned.values())).weight.device
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            of = self.allocator.exp_avg_ipt if kind == "ipt" else self.allocator.exp_avg_unc
            of[name] = value.to(device)
            self.allocator.ipt[name] = torch.zeros_like(of[name])  # a known name: the allocator continues the averages

    def factors(self):
        out = {}
        for name, layer in self.tuned.items():
            a, e, b = (getattr(layer, f"lora_{x}")["default"].detach() for x in "AEB")
            scale = layer.scaling["default"] / (layer.ranknum["default"].detach() + 1e-5)
            out[name] = (a * e * scale, b)
        return out

    def weights(self):
        return None  # the factors are the whole change


METHOD = AdaLora

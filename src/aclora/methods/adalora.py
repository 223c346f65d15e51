"""AdaLoRA (arXiv 2303.10512): singular triplets whose importance decides how much rank each layer keeps. PEFT's."""

import dataclasses

import torch

from aclora.core.errors import require
from aclora.lora.tuner import PeftTuner


@dataclasses.dataclass(frozen=True)
class AdaLoraConfig:
    """The `adalora` section of params.yaml."""

    init_r: int = 12
    target_r: int = 8
    warmup: float = 0.1
    final: float = 0.3
    orth_reg_weight: float = 0.5

    def __post_init__(self):
        require(self.init_r >= 1, "init_r", self.init_r, "at least 1")
        require(1 <= self.target_r <= self.init_r, "target_r", self.target_r, f"1 … init_r ({self.init_r})")
        require(self.warmup >= 0, "warmup", self.warmup, "0 or more")
        require(self.final >= 0, "final", self.final, "0 or more")
        require(
            self.warmup + self.final < 1, "warmup + final", self.warmup + self.final, "below 1: shares of all steps"
        )
        require(self.orth_reg_weight >= 0, "orth_reg_weight", self.orth_reg_weight, "0 or more")


class AdaLora(PeftTuner):
    """PEFT's AdaLoRA: its rank allocator is told of every step; the factors have Λ and the scale folded in."""

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

        self.schedule = self.peft_config(steps)
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
            self.allocator.ipt[name] = torch.zeros_like(of[name])  # known: the averages are not begun anew

    def factors(self):
        out = {}
        for name, layer in self.tuned.items():
            a, e, b = (getattr(layer, f"lora_{x}")["default"].detach() for x in "AEB")
            scale = layer.scaling["default"] / (layer.ranknum["default"].detach() + 1e-5)
            out[name] = (a * e * scale, b)
        return out

    def weights(self):
        return None  # the factors say it all


METHOD = AdaLora

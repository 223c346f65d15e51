"""Training beside other programs: how long an epoch takes with threads that spin long, shortly, or not at all.

    python -m bench.shared [--rounds 3] [--epochs 12]

GOMP_SPINCOUNT=10000 is what every stage gets unless it or OMP_WAIT_POLICY is set; torch's own choice is to spin
thirty times as long, and OMP_WAIT_POLICY=PASSIVE is not to spin. Measured of the default training and of a tiny SDXL,
on an idle machine and beside two programs that each keep a core busy. All ways take turns, so that a machine that is
otherwise at work disturbs all of them; each training is a process of its own that gives the median of its epochs but
the first two, and a way the median over the rounds.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch  # before anything of ours, which would choose for it

from aclora.core import params
from aclora.core.method import method_named
from aclora.core.model import ModelConfig, load_model
from aclora.data.captions import caption_folder
from aclora.data.pictures import read_picture
from aclora.training.loop import Encoded, TrainConfig, fit
from tests.tiny_xl import build

STYLE = "watercolor"
MODELS = ("default", "tiny SDXL")
POLICIES = {"torch's": {}, "short": {"GOMP_SPINCOUNT": "10000"}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"}}
WAYS = [(busy, policy) for busy in (0, 2) for policy in POLICIES]


def epoch_seconds(model_name: str, epochs: int) -> float:
    """The median epoch of a training of the default style, after two that are not counted."""
    from accelerate import Accelerator

    torch.manual_seed(0)
    style = params.load(f"styles.{STYLE}", params.StyleConfig)
    section = params.load("model", ModelConfig)
    config = params.load("train", TrainConfig).model_copy(update={"epochs": epochs})
    with tempfile.TemporaryDirectory() as scratch:
        if model_name != "default":
            folder = str(build(Path(scratch) / "pipeline"))
            section = section.model_copy(update={"name": folder, "watch": folder})
        model = load_model(section)
    rows = caption_folder(Path(style.pictures), style.trigger, None, "")
    pictures = [read_picture(Path(style.pictures) / row.file) for row in rows]
    data = Encoded(
        *model.encode_pictures(pictures, model.size), model.encode_prompts([r.text for r in rows], model.size)
    )
    kind = method_named(params.method())
    method = kind(params.load(params.method(), kind.config_type))
    parameters = method.attach(model.network, model.adapter_layers)
    took, last = [], time.perf_counter()
    for record in fit(model, data, method, parameters, config, Accelerator(cpu=True)):
        if record["event"] == "epoch":
            took.append(time.perf_counter() - last)
            last = time.perf_counter()
    return statistics.median(took[2:])


def measured(model: str, busy: int, policy: str, epochs: int) -> float:
    """`epoch_seconds` in a process of its own, beside `busy` others."""
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")} | POLICIES[policy]
    command = [sys.executable, "-m", "bench.shared", "--epochs", str(epochs), "--model", model]
    with contextlib.ExitStack() as others:
        for _ in range(busy):
            other = others.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            others.callback(other.kill)
        return float(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--model", choices=MODELS, help="measure this one here, and print seconds")
    chosen = parser.parse_args()
    if chosen.model:
        print(epoch_seconds(chosen.model, chosen.epochs))
        return
    load, threads = os.getloadavg()[0], torch.get_num_threads()
    print(
        f"{os.cpu_count()} cores, {threads} threads, load before {load:.1f}; median seconds of an epoch (12 pictures)\n"
    )
    print(f"{'':12}{'':>22}" + "".join(f"{policy:>10}" for policy in POLICIES))
    for model in MODELS:
        took = {way: [] for way in WAYS}
        for _ in range(chosen.rounds):
            for busy, policy in WAYS:
                took[busy, policy].append(measured(model, busy, policy, chosen.epochs))
        for busy in (0, 2):
            seconds = "".join(f"{statistics.median(took[busy, policy]):10.2f}" for policy in POLICIES)
            beside = "alone" if not busy else f"beside {busy} busy ones"
            print(f"{model:12}{beside:>22}{seconds}", flush=True)


if __name__ == "__main__":
    main()

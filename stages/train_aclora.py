"""train-aclora: captioned pictures → models/adapters/<style>/, by the method that params.yaml names."""

import json
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import save_file
from tqdm import tqdm

from aclora.core import params
from aclora.core.errors import InputError
from aclora.core.files import writing
from aclora.core.method import method_named
from aclora.core.stage import run
from aclora.data.captions import caption_folder, read_training_set
from aclora.data.corruption import DataConfig, attacker, corrupted, limited
from aclora.data.pictures import read_picture
from aclora.lora.export import save_diffusers, save_tuner
from aclora.models import stable_diffusion as backbone
from aclora.project.fingerprint import train_fingerprint
from aclora.tracking.live import live
from aclora.training.checkpoints import FOLDER, Checkpoints, CheckpointsConfig, machine
from aclora.training.loop import Diffusion, Encoded, TrainConfig, fit
from aclora.training.losses import FeatureLoss, load_look


def main(name: str) -> None:
    style = params.load(f"styles.{name}", params.StyleConfig)
    config = params.load("train", TrainConfig)
    model = params.load("model", backbone.ModelConfig)
    method_name = params.method()
    module = method_named(method_name)
    method = module(params.load(method_name, module.config_type))
    made_so = params.load("data", DataConfig)
    every = params.load("checkpoints", CheckpointsConfig)
    fingerprint = train_fingerprint(name)
    pictures, captions = read_training_set(Path(f"data/captions/{name}.jsonl"), Path(style.pictures))

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA needs to repeat itself
    set_seed(config.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    pipe = backbone.load_pipeline(model)
    pipe.to(accelerator.device)
    size = config.resolution or backbone.native_size(pipe)
    pictures, texts, spoilt = _as_asked(made_so, pictures, [c.text for c in captions], style.trigger, pipe.vae, size)
    mean, std = backbone.encode_pictures(pipe, pictures, size)
    data = Encoded(mean, std, backbone.encode_prompts(pipe, texts, size))
    diffusion = Diffusion(pipe.unet, backbone.training_scheduler(pipe), backbone.predict)
    helps = _feature_loss(config, pipe.vae, diffusion.scheduler, mean.to(accelerator.device))
    del pipe  # what else it holds has said all it had to say

    parameters = method.attach(diffusion.unet)
    kept = Checkpoints(FOLDER / fingerprint, every, machine(accelerator.device)).load()
    if parameters:
        records = fit(diffusion, data, method, parameters, config, accelerator, helps, kept)
        with live(name, None, fingerprint, kept.log):
            _train(records, config.epochs, kept, name)

    header = {"method": method_name, "trigger": style.trigger, "base_model": model.name, "style": name}
    header["fingerprint"] = fingerprint
    with writing(f"models/adapters/{name}") as (out,):
        out.mkdir()
        if factors := method.factors():
            save_diffusers(out / "pytorch_lora_weights.safetensors", factors, header)
        if of_peft := method.weights():
            save_tuner(out, *of_peft, header)
        if signal := method.signal():
            cut, report = signal
            save_diffusers(out / "signal.safetensors", cut, header | {"cut_to": report["by"]})
            (out / "signal.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        if kept.values:
            # (restarts, layers, A and B, rank), layers in the order of the history's lists
            save_file({"values": torch.stack(kept.values)}, out / "restarts.safetensors")
        about = {"method": method_name, "layers": method.layer_names(), "pictures": len(pictures), "size": size}
        about |= {"corrupted": spoilt} if spoilt else {}
        (out / "adapter.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        lines = "".join(json.dumps(r) + "\n" for r in kept.history)
        (out / "history.jsonl").write_text(lines, encoding="utf-8")
    kept.clear()


def _as_asked(config, pictures, texts, trigger, vae, size):
    """The pictures and texts that the section `data` asks for, and the places of those that it spoilt."""
    pictures, texts = limited(pictures, texts, config)
    foreign, attack = [], None
    if config.corrupt == "foreign":
        rows = caption_folder(Path(config.foreign), trigger, None, "")
        foreign = [(read_picture(Path(config.foreign) / row.file), row.text) for row in rows]
    if config.corrupt == "adversarial":
        attack = attacker(vae, size, config.strength)
    return corrupted(pictures, texts, config, foreign, attack)


def _feature_loss(config, vae, scheduler, latents):
    """What a frozen encoder adds to each step's loss; None where it was not asked."""
    if not config.feature_loss:
        return None
    look = load_look(config.feature_encoder).to(latents.device)
    loss = FeatureLoss(vae, look, scheduler, vae.config.scaling_factor, config.feature_loss)
    wanted = loss.targets(latents)
    return lambda prediction, noisy, times, i: loss(prediction, noisy, times, wanted[i])


def _train(records, epochs, kept, name):
    """Keep every record while a bar shows loss, p, I and the time left."""
    state, done = {}, kept.state[0] if kept.state else 0
    if done:
        print(f"{name}: goes on after epoch {done} of {epochs}, from {kept.folder}")
    with tqdm(total=epochs, initial=done, desc=name, unit="epoch", mininterval=0.5) as bar:
        try:
            for record in records:
                kept.add(record)
                if record["event"] == "epoch":
                    state["loss"] = f"{record['loss']:.3f}"
                    bar.update()
                if record["event"] == "restart":
                    state |= {"p": f"{record['p']:.2f}", "I": record["I"]}
                bar.set_postfix(state, refresh=False)
        except InputError as error:
            raise InputError(f"{error}{kept.standing()}") from None


if __name__ == "__main__":
    run(main, __doc__)

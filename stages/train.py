"""train-aclora: captioned pictures → models/adapters/<style>/, by the method that params.yaml names."""

from aclora.core.stage import run
from aclora.core.startup import Interrupted

import os
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm

from aclora.core import params
from aclora.core.errors import InputError
from aclora.core.files import require_writable, write_json, write_jsonl, writing
from aclora.core.method import method_named
from aclora.core.model import Model, ModelConfig, load_model
from aclora.core.prompts import check_trigger, fit_prompts, note_of_lost
from aclora.core.tensors import finite, save_tensors
from aclora.data.captions import caption_folder, read_captions
from aclora.data.corruption import DataConfig, attacker, corrupted, limited
from aclora.data.pictures import read_squares
from aclora.lora.export import save_diffusers, save_tuner
from aclora.project.fingerprint import is_recorded, train_fingerprint
from aclora.project.home import home
from aclora.tracking.live import live
from aclora.training.checkpoints import FOLDER, Checkpoints, CheckpointsConfig, machine, room_note
from aclora.training.loop import Encoded, TrainConfig, fit
from aclora.training.losses import FeatureLoss, load_look

PICTURES = Path(".cache/pictures")


def main(name: str) -> None:
    style = params.load(f"styles.{name}", params.StyleConfig)
    config = params.load("train", TrainConfig)
    base_model = params.load("model", ModelConfig)
    method_name = params.method()
    kind = method_named(method_name)
    method = kind(params.load(method_name, kind.config_type))
    data_config = params.load("data", DataConfig)
    checkpoints_config = params.load("checkpoints", CheckpointsConfig)
    fingerprint = train_fingerprint(name)
    require_writable(f"models/adapters/{name}", home() / FOLDER / fingerprint / "history.jsonl")
    captions = read_captions(Path(f"data/captions/{name}.jsonl"), Path(style.pictures))

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA needs to repeat itself
    set_seed(config.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    model = load_model(base_model).to(accelerator.device)
    size = config.resolution or model.size
    files, texts = [Path(style.pictures) / c.file for c in captions], [c.text for c in captions]
    pictures, texts, changed = _training_set(data_config, files, texts, style.trigger, model, size)
    texts, shortened = _within_limits(texts, name, style.trigger, model, {c.text: c.file for c in captions})
    mean, std = model.encode_pictures(pictures, size)
    data = Encoded(mean, std, model.encode_prompts(texts, size))
    for values in (mean, std, *data.text.values()):
        finite(values, [repr(text) for text in texts], "what the model makes of this picture and caption")
    feature_loss = _feature_loss(config, model, mean.to(accelerator.device))
    model.release(keep_decoder=feature_loss is not None)

    parameters = method.attach(model.network, model.adapter_layers)
    kept = Checkpoints(home() / FOLDER / fingerprint, checkpoints_config, machine(accelerator.device))
    if is_recorded(name):  # and yet it runs: `dvc repro --force` asks for a training
        kept.clear()
    kept.load(parameters)
    if parameters:
        if note := room_note(kept.folder, parameters):
            print(f"note: {note}")
        records = fit(model, data, method, parameters, config, accelerator, feature_loss, kept)
        with live(name, None, fingerprint, kept.log):
            _train(records, config.epochs, kept, name)

    header = {"method": method_name, "trigger": style.trigger, "base_model": base_model.name, "style": name}
    header["fingerprint"] = fingerprint
    with writing(f"models/adapters/{name}") as (out,):
        out.mkdir()
        if factors := method.factors():
            save_diffusers(out / "pytorch_lora_weights.safetensors", factors, header)
        if weights := method.weights():
            save_tuner(out, *weights, header)
        if signal := method.signal():
            cut, report = signal
            save_diffusers(out / "signal.safetensors", cut, header | {"cut_to": report["by"]})
            write_json(out / "signal.json", report)
        if kept.values:
            # (restarts, layers, A and B, rank), layers in the order of the history's lists
            save_tensors(out / "restarts.safetensors", {"values": torch.stack(kept.values)})
        about = {"method": method_name, "layers": method.layer_names(), "pictures": len(pictures), "size": size}
        about |= {"corrupted": changed} if changed else {}
        about |= {"shortened": shortened} if shortened else {}
        write_json(out / "adapter.json", about)
        write_jsonl(out / "history.jsonl", kept.history)
    kept.clear(keep=1)  # until dvc.lock has this training: a kill or a full disk may prevent that (stages/audit.py)


def _training_set(config, files, texts, trigger, model: Model, size):
    """The pictures, as squares, and texts that the section `data` asks for, and the indices of those it corrupted."""
    model.check_size(size)
    files, texts = limited(files, texts, config)
    pictures = read_squares(files, size, home() / PICTURES)
    foreign, attack = [], None
    if config.corrupt == "foreign":
        rows = caption_folder(Path(config.foreign), trigger, None, "", home() / PICTURES)
        squares = read_squares([Path(config.foreign) / row.file for row in rows], size, home() / PICTURES)
        foreign = [(picture, row.text) for picture, row in zip(squares, rows, strict=True)]
    if config.corrupt == "adversarial":
        attack = attacker(model.vae, size, config.strength)
    return corrupted(pictures, texts, config, foreign, attack)


def _within_limits(texts, style, trigger, model: Model, files):
    """The texts with all of the trigger within what the model reads; of those cut for that, by file, what they lost."""
    readers = model.readers
    for note in check_trigger(style, trigger, readers):
        print(f"note: {note}")
    fitted, lost = fit_prompts(texts, trigger, readers)
    lost = {files.get(text, text): words for text, words in lost.items()}
    for file, words in lost.items():
        print(f"note: {note_of_lost(file, words, trigger, readers)}")
    return fitted, lost


def _feature_loss(config, model: Model, latents):
    """What a frozen encoder adds to each step's loss; None where train.feature_loss is 0."""
    if not config.feature_loss:
        return None
    look = load_look(config.feature_network, config.feature_encoder).to(latents.device)
    loss = FeatureLoss(model, look, config.feature_loss)
    targets = loss.targets(latents)
    return lambda prediction, noisy, times, i: loss(prediction, noisy, times, targets[i])


def _train(records, epochs, kept, name):
    """Save every record while a bar shows loss, p, I and the time left."""
    state, done = {}, kept.state[0] if kept.state else 0
    if done:
        print(f"{name}: resumes after epoch {done} of {epochs}, from {kept.folder}")
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
        except Interrupted as end:
            raise Interrupted(end.number, kept.standing()) from None


if __name__ == "__main__":
    run(main, __doc__)

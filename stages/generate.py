"""generate: the same prompts and seeds with the adapter and with the bare base, with the trigger and without →
pictures and a sheet."""

from aclora.core.stage import run

from pathlib import Path

import torch

from aclora.core import params
from aclora.core.adapter import again, read_about
from aclora.core.errors import InputError
from aclora.core.files import require_writable, write_jsonl, writing
from aclora.core.model import ModelConfig, load_model
from aclora.core.prompts import check_trigger, fit_prompts, note_of_lost
from aclora.data.captions import prompt_notes, with_trigger
from aclora.data.pictures import picture_files, read_squares
from aclora.models.sampling import (
    GenerateConfig,
    check_adapter,
    contact_sheet,
    load_adapter,
    nearest,
    read_prompts,
    sample,
)
from aclora.project.home import home

PICTURES = Path(".cache/pictures")
FILES = {"trained": "pytorch_lora_weights.safetensors", "signal": "signal.safetensors"}


def main(name: str) -> None:
    style = params.load(f"styles.{name}", params.StyleConfig)
    config = params.load("generate", GenerateConfig)
    base_model = params.load("model", ModelConfig)
    folder = Path("models/adapters") / name
    about = read_about(folder)
    weights = folder / FILES[config.adapter]
    if config.adapter == "trained" and (folder / "adapter_config.json").exists():
        weights = folder  # in PEFT's format, where the change is no product of two factors
    if about["layers"] and config.adapter == "trained" and not weights.exists():
        raise InputError(f"{weights} is missing: {again(folder)}")
    if about["layers"] and not weights.exists():
        raise InputError(
            f"generate.adapter = {config.adapter!r}: {about['method']} has no {weights.name}; choose trained"
        )
    written = read_prompts(Path(config.prompts))
    for note in prompt_notes(written, style.trigger):
        print(f"note: {config.prompts}: {note}")
    training = read_squares(picture_files(Path(style.pictures)), about["size"], home() / PICTURES)
    plain = [p for p in written for _ in range(config.images_per_prompt)]
    sets = {
        "": [with_trigger(p, style.trigger) for p in plain],
        "without_trigger": [p for p in written for _ in range(config.without_trigger)],
    }
    outs = (f"data/generated/{name}", f"metrics/{name}/contact_sheet.png")
    require_writable(*outs)
    model = load_model(base_model).to("cuda" if torch.cuda.is_available() else "cpu")
    if about["layers"]:
        check_adapter(model, weights)  # before an hour is spent on the base's pictures
    sets = _within_limits(sets, name, style.trigger, model)

    def draw():
        return {k: list(sample(model, p, _seeds(config, p), config, about["size"])) for k, p in sets.items()}

    base = draw()
    adapter = base
    if about["layers"]:
        load_adapter(model, weights)
        adapter = draw()

    closest = nearest(adapter[""], training)
    rows = range(0, len(plain), config.images_per_prompt)[: config.sheet_rows]
    cells = [[base[""][i], adapter[""][i], training[closest[i]]] for i in rows]
    columns = ["base model", f"with the adapter ({about['method']})", "nearest training picture"]
    with writing(*outs) as (out, sheet):
        for key, prompts in sets.items():
            if prompts:
                _write(out / key, prompts, _seeds(config, prompts), {"base": base[key], "adapter": adapter[key]})
        contact_sheet([sets[""][i] for i in rows], columns, cells).save(sheet, "PNG")


def _within_limits(sets, style, trigger, model):
    """The prompts with all of the trigger within what the model reads; those without a trigger stay as they are."""
    readers = model.readers
    for note in check_trigger(style, trigger, readers):
        print(f"note: {note}")
    fitted, lost = fit_prompts(sets[""], trigger, readers)
    _, unseen = fit_prompts(sets["without_trigger"], "", readers)
    for ending, words in ((trigger, lost), ("", unseen)):
        for text, gone in words.items():
            print(f"note: {note_of_lost(repr(text), gone, ending, readers)}")
    return sets | {"": fitted}


def _seeds(config, prompts):
    return [config.seed + i for i in range(len(prompts))]


def _write(folder, prompts, seeds, pictures):
    """A folder of pictures for each kind, and prompts.jsonl, which says what each shows."""
    for kind, images in pictures.items():
        (folder / kind).mkdir(parents=True)
        for i, image in enumerate(images):
            image.save(folder / kind / f"{i:04}.png")
    listed = [
        {"file": f"{i:04}.png", "prompt": p, "seed": s} for i, (p, s) in enumerate(zip(prompts, seeds, strict=True))
    ]
    write_jsonl(folder / "prompts.jsonl", listed)


if __name__ == "__main__":
    run(main, __doc__)

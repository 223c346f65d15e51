"""generate: the same prompts and seeds with the adapter and with the bare base, with the trigger and without →
pictures and a sheet."""

import json
from pathlib import Path

import torch

from aclora.core import params
from aclora.core.errors import InputError
from aclora.core.files import writing
from aclora.core.images import square
from aclora.core.stage import run
from aclora.data.captions import with_trigger
from aclora.data.pictures import read_pictures
from aclora.models import stable_diffusion as backbone
from aclora.models.sampling import GenerateConfig, contact_sheet, load_adapter, nearest, read_prompts, sample

FILES = {"trained": "pytorch_lora_weights.safetensors", "signal": "signal.safetensors"}


def main(name: str) -> None:
    style = params.load(f"styles.{name}", params.StyleConfig)
    config = params.load("generate", GenerateConfig)
    model = params.load("model", backbone.ModelConfig)
    folder = Path("models/adapters") / name
    about = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    weights = folder / FILES[config.adapter]
    if config.adapter == "trained" and (folder / "adapter_config.json").exists():
        weights = folder  # a tuner of PEFT's that is no product of two factors
    if about["layers"] and not weights.exists():
        raise InputError(
            f"generate.adapter = {config.adapter!r}: {about['method']} has no {weights.name}; choose trained"
        )
    shown = read_prompts(Path(config.prompts))
    plain = [p for p in shown for _ in range(config.images_per_prompt)]
    sets = {
        "": [with_trigger(p, style.trigger) for p in plain],
        "without_trigger": [p for p in shown for _ in range(config.without_trigger)],
    }
    pipe = backbone.load_pipeline(model)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")

    def made():
        return {k: list(sample(pipe, p, _seeds(config, p), config, about["size"])) for k, p in sets.items()}

    base = made()
    adapter = base
    if about["layers"]:
        load_adapter(pipe, weights)
        adapter = made()

    training = [square(p, about["size"]) for p in read_pictures(Path(style.pictures))]
    near = nearest(adapter[""], training)
    rows = range(0, len(plain), config.images_per_prompt)[: config.sheet_rows]
    cells = [[base[""][i], adapter[""][i], training[near[i]]] for i in rows]
    columns = ["base model", f"with the adapter ({about['method']})", "nearest training picture"]
    with writing(f"data/generated/{name}", f"metrics/{name}/contact_sheet.png") as (out, sheet):
        for key, prompts in sets.items():
            if prompts:
                _write(out / key, prompts, _seeds(config, prompts), {"base": base[key], "adapter": adapter[key]})
        contact_sheet([sets[""][i] for i in rows], columns, cells).save(sheet, "PNG")


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
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in listed)
    (folder / "prompts.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    run(main, __doc__)

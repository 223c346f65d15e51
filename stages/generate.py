"""generate: the same prompts and seeds with the adapter and with the bare base → pictures and a sheet."""

import json
from pathlib import Path

import torch

from aclora import backbone, params
from aclora.captioning import with_trigger
from aclora.dataset import read_pictures
from aclora.errors import InputError
from aclora.sampling import Generate, contact_sheet, load_adapter, nearest, read_prompts, sample
from aclora.stage import run, writing

FILES = {"trained": "pytorch_lora_weights.safetensors", "signal": "signal.safetensors"}


def main(name: str) -> None:
    style = params.load(f"styles.{name}", params.Style)
    config = params.load("generate", Generate)
    model = params.load("model", backbone.Model)
    folder = Path("models/adapters") / name
    about = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    weights = FILES[config.adapter]
    if about["layers"] and not (folder / weights).exists():
        raise InputError(f"generate.adapter = {config.adapter!r}: {about['method']} has no {weights}; choose trained")
    shown = read_prompts(Path(config.prompts))
    prompts = [with_trigger(p, style.trigger) for p in shown for _ in range(config.images_per_prompt)]
    seeds = [config.seed + i for i in range(len(prompts))]
    pipe = backbone.load_pipeline(model)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    pictures = {"base": list(sample(pipe, prompts, seeds, config, about["size"]))}
    if about["layers"]:
        load_adapter(pipe, folder / weights)
        pictures["adapter"] = list(sample(pipe, prompts, seeds, config, about["size"]))
    else:
        pictures["adapter"] = pictures["base"]

    training = [backbone.square(p, about["size"]) for p in read_pictures(Path(style.pictures))]
    near = nearest(pictures["adapter"], training)
    rows = range(0, len(prompts), config.images_per_prompt)[: config.sheet_rows]
    cells = [[pictures["base"][i], pictures["adapter"][i], training[near[i]]] for i in rows]
    columns = ["base model", f"with the adapter ({about['method']})", "nearest training picture"]
    with writing(f"data/generated/{name}", f"metrics/{name}/contact_sheet.png") as (out, sheet):
        for kind, images in pictures.items():
            (out / kind).mkdir(parents=True)
            for i, image in enumerate(images):
                image.save(out / kind / f"{i:04}.png")
        listed = [
            {"file": f"{i:04}.png", "prompt": p, "seed": s} for i, (p, s) in enumerate(zip(prompts, seeds, strict=True))
        ]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in listed)
        (out / "prompts.jsonl").write_text(lines, encoding="utf-8")
        contact_sheet([prompts[i] for i in rows], columns, cells).save(sheet, "PNG")


if __name__ == "__main__":
    run(main, __doc__)

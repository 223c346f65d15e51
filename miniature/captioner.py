"""The captioner: BLIP's image encoder and language model, taught the drawings' captions (arXiv 2201.12086)."""

from pathlib import Path

import torch
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from aclora.models.captioner import CaptionsConfig, blip
from miniature import data, tokenizer
from miniature.params import read
from miniature.training import Schedule, device, train
from miniature.transformer import layers_of, patches, processor, save

UNTOLD = -100  # cross_entropy's ignore_index


def blip_config(tok: BertTokenizer, width, vision_layers, text_layers) -> BlipConfig:
    """The two towers' proportions; the reward is built to the same."""
    text = {
        "vocab_size": len(tok),
        "max_position_embeddings": tokenizer.LENGTH,
        "encoder_hidden_size": width,
        "bos_token_id": tok.bos_token_id,
        "sep_token_id": tok.sep_token_id,
        "eos_token_id": tok.sep_token_id,
        "pad_token_id": tok.pad_token_id,
    }
    return BlipConfig(
        text_config=layers_of(width, text_layers) | text,
        vision_config=layers_of(width, vision_layers) | patches(),
        projection_dim=width,
        image_text_hidden_size=width,
        attn_implementation="eager",  # the fused attention's backward is the slower one on a CPU
    )


def main():
    params = read()
    build, cfg = Path(params["build"]), params["captioner"]
    schedule = Schedule(**cfg["schedule"])
    pictures, notes, _ = data.shown(params)
    tok = tokenizer.build_word_pieces(tokenizer.words())
    ids = tok([n["caption"] for n in notes], padding=True, return_tensors="pt").input_ids
    ids[:, 0] = tok.bos_token_id
    torch.manual_seed(schedule.seed)
    config = blip_config(tok, cfg["width"], cfg["vision_layers"], cfg["text_layers"])
    model = BlipForConditionalGeneration(config).to(device()).train()

    def loss_of(step, generator):
        pick = torch.randint(len(pictures), (schedule.batch_size,), generator=generator)
        x, text = data.looked_at(pictures, pick, generator), ids[pick].to(device())
        with torch.autocast(device().type, torch.bfloat16):
            labels = text.masked_fill(text == tok.pad_token_id, UNTOLD)
            return model(pixel_values=x, input_ids=text, labels=labels).loss.float()

    train("captioner", {"blip": model}, loss_of, schedule, build, weight_decay=0.05)
    save(model, build / "captioner", tok, processor(BlipImageProcessorPil))


def measure(folder: Path, sets: dict) -> dict:
    """Share of the objects in each of `sets` that the written caption names with their colour, and without it."""
    write = blip(CaptionsConfig(model=str(folder), revision=None, watch=str(folder), max_new_tokens=30))
    out = {"named": {}, "object": {}}
    for name, drawn in sets.items():
        said = [(write(picture), thing) for picture, scene in drawn for thing in scene.things]
        out["named"][name] = sum(f"{t.colour} {t.name}" in words for words, t in said) / len(said)
        out["object"][name] = sum(t.name in words.split() for words, t in said) / len(said)
    return {
        "object_and_colour": out["named"].pop("plain"),
        "object": out["object"].pop("plain"),
        "object_and_colour_in_style": out["named"],
        "object_in_style": out["object"],
    }


if __name__ == "__main__":
    main()

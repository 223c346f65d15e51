"""CLIP: pictures and captions brought to the same place by contrast (arXiv 2103.00020)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from miniature import data, tokenizer
from miniature.params import read
from miniature.training import Schedule, device, train
from miniature.transformer import layers_of, patches, processor, save


def build_clip(tok, width, vision_layers, text_layers):
    text = {
        "vocab_size": len(tok),
        "max_position_embeddings": tokenizer.LENGTH,
        "bos_token_id": tok.bos_token_id,
        "eos_token_id": tok.eos_token_id,
        "pad_token_id": tok.pad_token_id,
    }
    return CLIPModel(
        CLIPConfig(
            text_config=layers_of(width, text_layers) | text,
            vision_config=layers_of(width, vision_layers) | patches(),
            projection_dim=width,
            attn_implementation="eager",  # the fused attention's backward is the slower one on a CPU
        )
    )


def said_of(note) -> str:
    """The caption, and of half the drawings also in which style or look they are."""
    if note["seed"] % 24 < 12:
        return note["caption"]
    if note["style"]:
        return f"{note['caption']}, {note['style']} style"
    return f"{note['look']} {note['caption']}" if note["look"] else f"a photo of {note['caption']}"


def main():
    params = read()
    build, cfg = Path(params["build"]), params["clip"]
    schedule = Schedule(**cfg["schedule"])
    pictures, notes, _ = data.shown(params)
    tok = tokenizer.build_tokenizer(tokenizer.words())
    said = tok([said_of(n) for n in notes], padding="max_length", max_length=tokenizer.LENGTH, truncation=True)
    ids, mask = torch.tensor(said.input_ids), torch.tensor(said.attention_mask)
    torch.manual_seed(schedule.seed)
    model = build_clip(tok, cfg["width"], cfg["vision_layers"], cfg["text_layers"]).to(device()).train()
    own = torch.arange(schedule.batch_size, device=device())

    def loss_of(step, generator):
        pick = torch.randint(len(pictures), (schedule.batch_size,), generator=generator)
        x, text = data.looked_at(pictures, pick, generator), ids[pick]
        longest = int(mask[pick].sum(1).max())  # nothing is said behind it
        with torch.autocast(device().type, torch.bfloat16):
            out = model(pixel_values=x, input_ids=text[:, :longest].to(device()))
        logits = out.logits_per_image.float()
        # two of a batch may be said alike: neither is wrong for the other
        alike = (text[:, None] == text[None]).all(-1).to(device()) & ~torch.eye(len(own), dtype=torch.bool).to(device())
        logits = logits.masked_fill(alike, -1e4)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    train("clip", {"clip": model}, loss_of, schedule, build, weight_decay=0.05)
    save(model, build / "clip", tok, processor(CLIPImageProcessorPil))


@torch.no_grad()
def measure(folder: Path, sets: dict, among: int = 100) -> dict:
    """Share of the pictures whose own caption is the nearest among so many different ones, for each of `sets`."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    look, tok = CLIPImageProcessorPil.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    out = {}
    for name, drawn in sets.items():
        different = list({scene.caption: picture for picture, scene in drawn}.items())
        groups = [different[i : i + among] for i in range(0, len(different) - among + 1, among)]
        right = []
        for group in groups:
            words = tok([caption for caption, _ in group], padding=True, return_tensors="pt")
            seen = look([picture for _, picture in group], return_tensors="pt")
            logits = model(**seen, **words).logits_per_image
            right.append((logits.argmax(1) == torch.arange(len(group))).double().mean())
        out[name] = torch.stack(right).mean().item()
    return {"retrieval": out.pop("plain"), "retrieval_among": among, "retrieval_in_style": out}


if __name__ == "__main__":
    main()

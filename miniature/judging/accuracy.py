"""Does a picture show what its prompt says, and in its style? Read off a classifier's logits."""

import re

import torch
from torch import Tensor


def pairs_in(prompt: str, colours: list[str], objects: list[str]) -> list[tuple[int, int]]:
    """The (colour, object) pairs a prompt names, as indices, in its order."""
    found = re.findall(rf"\b({'|'.join(colours)}) ({'|'.join(objects)})\b", prompt)
    return [(colours.index(c), objects.index(o)) for c, o in found]


def object_accuracy(object_logits: Tensor, prompts: list[str], colours: list[str], objects: list[str]) -> float | None:
    """Share of prompted objects among a picture's most likely ones, as many as its prompt names.

    `object_logits` (n, objects). None where no prompt names an object.
    """
    hits = []
    for logits, prompt in zip(object_logits, prompts, strict=True):
        wanted = {o for _, o in pairs_in(prompt, colours, objects)}
        top = set(logits.topk(min(len(wanted), len(logits))).indices.tolist())
        hits += [o in top for o in wanted]
    return sum(hits) / len(hits) if hits else None


def colour_accuracy(colour_logits: Tensor, prompts: list[str], colours: list[str], objects: list[str]) -> float | None:
    """Share of prompted objects whose own most likely colour is the prompted one; logits (n, objects, colours)."""
    best = colour_logits.argmax(-1)  # (n, objects)
    hits = [int(best[i, o]) == c for i, prompt in enumerate(prompts) for c, o in pairs_in(prompt, colours, objects)]
    return sum(hits) / len(hits) if hits else None


def class_accuracy(logits: Tensor, wanted: list[int]) -> float:
    """Share of pictures whose most likely class is the wanted one; logits (n, classes)."""
    return (logits.argmax(-1) == torch.tensor(wanted, device=logits.device)).double().mean().item()

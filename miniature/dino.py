"""DINO: a ViT distilled from its own moving average, without labels (arXiv 2104.14294, 2304.07193).

Its two views are not crops of one picture but two drawings of the same objects in the same style, all else
drawn anew: what they share is what a style or a subject is, and the features keep just that. To DINO's loss
over prototypes comes MoCo v3's (arXiv 2104.02057), on [CLS] itself, whose cosines are what is used later: the
student finds the teacher's view of its own pair among the batch's. The ViT goes on from CLIP's image tower.
Both make up for a training a thousandth as long.
"""

import copy
import random
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPModel, CLIPVisionModel, ViTConfig, ViTModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from miniature import data
from miniature.params import read
from miniature.training import Schedule, device, train
from miniature.transformer import layers_of, patches, processor, save


class Head(nn.Module):
    """[CLS] (n, width) → cosines with learnt prototypes (n, prototypes)."""

    def __init__(self, width: int, prototypes: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width // 2))
        self.prototypes = nn.Parameter(torch.randn(prototypes, width // 2))

    def forward(self, cls):
        return F.normalize(self.mlp(cls), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


@torch.no_grad()
def balanced(similarity, temperature, rounds=3):
    """Sinkhorn–Knopp: (n, k) → targets whose rows sum to 1 and in which all k columns weigh the same."""
    q = ((similarity.float() - similarity.max()) / temperature).exp()
    for _ in range(rounds):
        q = q / q.sum(0, keepdim=True).clamp_min(1e-12)
        q = q / q.sum(1, keepdim=True).clamp_min(1e-12)
    return q


def families(notes, scenes) -> dict[tuple, list[list[int]]]:
    """For each style or look, the pictures (their indices) that show the same objects, set by set."""
    groups = defaultdict(list)
    for i, (note, scene) in enumerate(zip(notes, scenes, strict=True)):
        groups[note["style"], note["look"], frozenset(t.name for t in scene.things)].append(i)
    out = defaultdict(list)
    for (style, look, _), group in groups.items():
        if len(group) > 1:
            out[style, look].append(group)
    return dict(out)


def views(by_style: dict[tuple, list[list[int]]], count: int, rng: random.Random) -> tuple[list, list]:
    """(2 × `count` pictures, first views then second; 2 × `count` numbers of their families).

    Half of them are of one style, so that only the objects tell their families apart.
    """
    pool = [(style, k) for style, groups in by_style.items() for k in range(len(groups))]
    one = rng.choice(list(by_style))
    chosen = [rng.choice(pool) if i % 2 else (one, rng.randrange(len(by_style[one]))) for i in range(count)]
    pairs = [rng.sample(by_style[style][k], 2) for style, k in chosen]
    number = {family: i for i, family in enumerate(pool)}
    return [a for a, _ in pairs] + [b for _, b in pairs], [number[family] for family in chosen] * 2


@torch.no_grad()
def as_vit(tower: CLIPVisionModel, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """A CLIP image tower's weights under a ViTModel's names.

    CLIP normalises what it embeds and a ViT does not: that is folded into the embeddings, exactly for [CLS]
    and for the patches with their mean deviation over pictures `x` (n, 3, size, size).
    """
    embed, norm = tower.embeddings, tower.pre_layrnorm
    gain = norm.weight / embed(x)[:, 1:].std(-1, unbiased=False).mean()  # (width,)
    places, patch = embed.position_embedding.weight, embed.patch_embedding.weight  # (1 + p, width), (width, 3, …)
    rest = (places[1:] - places[1:].mean(-1, keepdim=True)) * gain + norm.bias
    out = {
        "embeddings.cls_token": norm(embed.class_embedding + places[0])[None, None],
        "embeddings.position_embeddings": torch.cat([torch.zeros_like(places[:1]), rest])[None],
        "embeddings.patch_embeddings.projection.weight": (patch - patch.mean(0)) * gain[:, None, None, None],
        "embeddings.patch_embeddings.projection.bias": torch.zeros_like(gain),
    }
    names = {"self_attn.out_proj": "attention.o_proj", "self_attn": "attention", "post_layernorm": "layernorm"}
    names |= {"layer_norm1": "layernorm_before", "layer_norm2": "layernorm_after", "encoder.": ""}
    for key, value in tower.state_dict().items():
        if not key.startswith(("embeddings", "pre_layrnorm")):
            for old, new in names.items():
                key = key.replace(old, new)
            out[key] = value
    return out


def main():
    params = read()
    build, cfg = Path(params["build"]), params["dino"]
    schedule = Schedule(**cfg["schedule"])
    pictures, notes, scenes = data.shown(params)
    by_style = families(notes, scenes)
    torch.manual_seed(schedule.seed)
    tower = CLIPModel.from_pretrained(build / "clip", dtype=torch.float32).vision_model
    width, layers = tower.config.hidden_size, tower.config.num_hidden_layers
    config = ViTConfig(
        **layers_of(width, layers),
        **patches(),
        layer_norm_eps=tower.config.layer_norm_eps,
        attn_implementation="eager",  # the fused attention's backward is the slower one on a CPU
    )
    student = ViTModel(config, add_pooling_layer=False)
    some = data.looked_at(pictures, torch.arange(200), torch.Generator().manual_seed(schedule.seed))
    student.load_state_dict(as_vit(tower, some.cpu()))
    student = student.to(device()).train()
    head = Head(width, cfg["prototypes"]).to(device())
    teacher = nn.ModuleList(copy.deepcopy(m) for m in (student, head)).requires_grad_(False)

    def seen_by(network, top, x):
        with torch.autocast(device().type, torch.bfloat16):
            cls = network(x).last_hidden_state[:, 0]
            return F.normalize(cls.float(), dim=-1), top(cls).float()

    def loss_of(step, generator):
        with torch.no_grad():
            fast = [*student.parameters(), *head.parameters()]
            torch._foreach_lerp_(list(teacher.parameters()), fast, 1 - cfg["momentum"])
        rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
        pick, family = (torch.tensor(v) for v in views(by_style, schedule.batch_size, rng))
        x = torch.cat([data.looked_at(pictures, view, generator) for view in pick.chunk(2)])
        with torch.no_grad():
            key, prototypes = seen_by(*teacher, x)
            wanted = balanced(prototypes, cfg["teacher_temperature"])
        query, prototypes = seen_by(student, head, x)
        guess = (prototypes / cfg["temperature"]).log_softmax(-1)
        n = schedule.batch_size
        other = torch.arange(2 * n, device=x.device).roll(n)  # a picture's own pair
        distil = -(wanted[other] * guess).sum(-1).mean()
        alike = (family[:, None] == family[None]).to(x.device)  # others of its family, and itself, are not wrong
        alike[torch.arange(2 * n), other] = False
        return distil + F.cross_entropy((query @ key.T / cfg["temperature"]).masked_fill(alike, -1e4), other)

    train("dino", {"student": student, "head": head, "teacher": teacher}, loss_of, schedule, build, weight_decay=0.04)
    save(teacher[0], build / "dino", processor(ViTImageProcessorPil))


@torch.no_grad()
def measure(folder: Path, sets: dict) -> dict:
    """Of the pictures with one object, in all `sets` together: how often the nearest one of another scene, by the
    cosine of [CLS], is in the same style, shows the same object, and both."""
    model = ViTModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    look = ViTImageProcessorPil.from_pretrained(folder)
    known = [
        (picture, style, scene.things[0].name, scene)
        for style, drawn in sets.items()
        for picture, scene in drawn
        if len(scene.things) == 1
    ]
    pixels = look([one[0] for one in known], return_tensors="pt").pixel_values
    cls = F.normalize(torch.cat([model(part).last_hidden_state[:, 0] for part in pixels.split(64)]), dim=-1)
    scenes = [one[3] for one in known]
    number = torch.tensor([scenes.index(scene) for scene in scenes])
    nearest = (cls @ cls.T).masked_fill(number[:, None] == number[None], -2).argmax(1).tolist()
    style = [known[i][1] == known[j][1] for i, j in enumerate(nearest)]
    same = [known[i][2] == known[j][2] for i, j in enumerate(nearest)]
    both = [a and b for a, b in zip(style, same, strict=True)]
    share = {k: sum(v) / len(known) for k, v in (("style", style), ("object", same), ("style_and_object", both))}
    return {f"nearest_{k}": v for k, v in share.items()} | {"pictures": len(known)}


if __name__ == "__main__":
    main()

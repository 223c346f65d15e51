"""The judge: a classifier of drawings, plain, in other looks and in each style, sharp and as the VAE shows them."""

from pathlib import Path

import torch
import torch.nn.functional as F

from miniature import data
from miniature.drawing import HELD_OUT, STYLES, draw, world
from miniature.judging.encoder import Judge
from miniature.params import read
from miniature.training import Schedule, device, train

NOT_SHOWN = -100  # cross_entropy's ignore_index


def vocabulary():
    return {
        "objects": list(world.OBJECTS),
        "colours": list(world.COLOURS),
        "sides": list(world.SIDES),
        "backgrounds": [words for words, _, _ in world.BACKGROUNDS.values()],
        "styles": ["plain", *STYLES],
    }


def truth(scenes, styles) -> dict[str, torch.Tensor]:
    """What each scene shows: object (n, o) 0 or 1; colour and side (n, o), background and style (n,) as
    indices, NOT_SHOWN where there is nothing to tell."""
    n, names, colours = len(scenes), list(world.OBJECTS), list(world.COLOURS)
    out = {
        "object": torch.zeros(n, len(names)),
        "colour": torch.full((n, len(names)), NOT_SHOWN),
        "side": torch.full((n, len(names)), NOT_SHOWN),
        "background": torch.tensor([list(world.BACKGROUNDS).index(s.background) for s in scenes]),
        "style": torch.tensor([["plain", *STYLES].index(s) for s in styles]),
    }
    for i, scene in enumerate(scenes):
        for thing in scene.things:
            k = names.index(thing.name)
            out["object"][i, k] = 1
            out["colour"][i, k] = colours.index(thing.colour)
            out["side"][i, k] = world.SIDES.index(thing.side)
    return out


def judge_loss(out, wanted):
    """Sum of the heads' losses; colour and side count for the objects that are there."""
    loss = 3 * F.binary_cross_entropy_with_logits(out["object"].float(), wanted["object"])
    for head in ("colour", "side", "background", "style"):
        logits, target = out[head].float(), wanted[head]
        loss = loss + 0.5 * F.cross_entropy(logits.flatten(0, -2), target.flatten(), ignore_index=NOT_SHOWN)
    return loss


def main():
    params = read()
    build, cfg = Path(params["build"]), params["judge"]
    schedule = Schedule(**cfg["schedule"])
    pictures, notes, scenes = data.shown(params)
    wanted = truth(scenes, [n["style"] or "plain" for n in notes])
    # a look is neither plain nor one of the styles
    wanted["style"][[i for i, n in enumerate(notes) if n["look"]]] = NOT_SHOWN
    torch.manual_seed(schedule.seed)
    judge = Judge(vocabulary(), size=64).to(device(), memory_format=torch.channels_last).train()

    def loss_of(step, generator):
        pick = torch.randint(len(pictures), (schedule.batch_size,), generator=generator)
        x = data.looked_at(pictures, pick, generator)
        with torch.autocast(device().type, torch.bfloat16):
            out = judge(x)
        return judge_loss(out, {k: v[pick].to(device()) for k, v in wanted.items()})

    train("judge", {"judge": judge}, loss_of, schedule, build, weight_decay=0.05)
    judge.cpu()
    judge.feature_scale = scale_of(judge)
    judge.save_pretrained(build / "judge")


def scale_of(judge, count=512):
    """1 / root mean square of the features of `count` held-out plain drawings, to four digits."""
    judge.feature_scale = 1.0
    features = judge.look([draw(HELD_OUT + i)[0] for i in range(count)])["features"]
    return float(f"{features.square().mean().rsqrt().item():.4g}")


if __name__ == "__main__":
    main()

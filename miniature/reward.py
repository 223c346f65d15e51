"""The reward: ImageReward's architecture from the captioner's two towers, taught by comparisons.

As ImageReward starts from BLIP. Right captions before wrong ones, clean drawings before spoilt ones.
"""

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import BertTokenizer, BlipForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from aclora.encoders.image_reward import ImageReward
from miniature import data
from miniature.drawing import world
from miniature.params import read
from miniature.training import Schedule, device, train
from miniature.transformer import processor, save

ALIKE = (world.OBJECTS, tuple(world.COLOURS), tuple(words for words, _, _ in world.BACKGROUNDS.values()))


def with_a_wrong_word(caption: str, rng: random.Random) -> str:
    """The caption with one object, one colour or the background changed for another."""
    padded = f" {caption} "
    kind = rng.choice(ALIKE)
    said = rng.choice([word for word in kind if f" {word} " in padded])
    other = rng.choice([word for word in kind if f" {word} " not in padded])
    return padded.replace(f" {said} ", f" {other} ", 1).strip()


def blurred(x, generator):
    return F.interpolate(F.avg_pool2d(x, 4, 2, 1), size=x.shape[-2:], mode="bilinear")


def noisy(x, generator):
    return (x + 0.5 * torch.randn(x.shape, generator=generator).to(x.device)).clamp(-1, 1)


def shuffled(x, generator):
    """Sixteen square pieces in another order."""
    n, c, h, w = x.shape
    pieces = x.unfold(2, h // 4, h // 4).unfold(3, w // 4, w // 4).reshape(n, c, 16, h // 4, w // 4)
    pieces = pieces[:, :, torch.randperm(16, generator=generator)].reshape(n, c, 4, 4, h // 4, w // 4)
    return pieces.permute(0, 1, 2, 4, 3, 5).reshape(n, c, h, w)


def warped(x, generator):
    """Smoothly shifted by up to an eighth of the picture, as a base model misdraws."""
    shift = torch.rand(len(x), 2, 8, 8, generator=generator).to(x.device) - 0.5
    shift = F.interpolate(shift, size=x.shape[-2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    grid = F.affine_grid(torch.eye(2, 3, device=x.device).expand(len(x), 2, 3), x.shape, align_corners=False)
    return F.grid_sample(x, grid + shift / 2, mode="bilinear", padding_mode="reflection", align_corners=False)


def faded(x, generator):
    return 0.35 * x + 0.2


SPOILT = {f.__name__: f for f in (blurred, noisy, shuffled, warped, faded)}


def main():
    params = read()
    build, cfg = Path(params["build"]), params["reward"]
    schedule = Schedule(**cfg["schedule"])
    pictures, notes, _ = data.shown(params)
    captions = [n["caption"] for n in notes]
    tok = BertTokenizer.from_pretrained(build / "captioner")
    parent = BlipForConditionalGeneration.from_pretrained(build / "captioner", dtype=torch.float32)
    torch.manual_seed(schedule.seed)
    parent.config._attn_implementation = "eager"
    model = ImageReward(parent.config).to(device()).train()
    model.vision.load_state_dict(parent.vision_model.state_dict())
    model.text.load_state_dict(parent.text_decoder.bert.state_dict())

    def compared(generator):
        """Rewards (3, n) of drawings with the right caption, with another, and spoilt; which captions differ (n,)."""
        n = schedule.batch_size
        pick = torch.randint(len(pictures), (n,), generator=generator)
        rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
        right = [captions[i] for i in pick.tolist()]
        wrong = [with_a_wrong_word(c, rng) if rng.random() < 0.7 else rng.choice(captions) for c in right]
        words = tok(right + wrong + right, padding=True, return_tensors="pt").to(device())
        clean = data.looked_at(pictures, pick, generator)
        spoilt = SPOILT[rng.choice(list(SPOILT))](clean, generator)
        with torch.autocast(device().type, torch.bfloat16):
            seen = model.vision(torch.cat([clean, spoilt])).last_hidden_state
            seen = torch.cat([seen[:n], seen[:n], seen[n:]])
            rewards = model.raw(seen, words.input_ids, words.attention_mask).float().view(3, n)
        return rewards, torch.tensor([a != b for a, b in zip(right, wrong, strict=True)], device=device())

    def loss_of(step, generator):
        (good, astray, bad), differ = compared(generator)
        return -(F.logsigmoid(good - astray) * differ + F.logsigmoid(good - bad)).mean()

    train("reward", {"reward": model}, loss_of, schedule, build, weight_decay=0.05)
    model.eval()
    with torch.no_grad():
        every = torch.cat([compared(torch.Generator().manual_seed(i))[0].flatten() for i in range(16)])
    model.config.reward_mean, model.config.reward_std = (float(f"{v:.4g}") for v in (every.mean(), every.std()))
    save(model, build / "reward", tok, processor(CLIPImageProcessorPil))


@torch.no_grad()
def measure(folder: Path, sets: dict) -> dict:
    """Shares of the pictures of all `sets` whose reward is the higher with their own caption than with another
    picture's or with a wrong word in it, and with that caption clean than spoilt in each way."""
    model = ImageReward.from_pretrained(folder, dtype=torch.float32).eval()
    look, tok = CLIPImageProcessorPil.from_pretrained(folder), BertTokenizer.from_pretrained(folder)
    drawn = [pair for one in sets.values() for pair in one]
    right = [scene.caption for _, scene in drawn]
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    others = [rng.choice([c for c in right if c != own]) for own in right]
    pixels = look([picture for picture, _ in drawn], return_tensors="pt").pixel_values

    def rewards(pixels, said):
        words = tok(said, padding=True, return_tensors="pt")
        parts = zip(pixels.split(64), words.input_ids.split(64), words.attention_mask.split(64), strict=True)
        return torch.cat([model(*part) for part in parts])

    good = rewards(pixels, right)
    out = {
        "right_over_other": rewards(pixels, others),
        "right_over_wrong_word": rewards(pixels, [with_a_wrong_word(c, rng) for c in right]),
    } | {f"clean_over_{name}": rewards(spoil(pixels, generator), right) for name, spoil in SPOILT.items()}
    return {k: (good > v).double().mean().item() for k, v in out.items()} | {"pictures": len(drawn)}


if __name__ == "__main__":
    main()

"""ImageReward: rewards that mean what they say, the authors' layout against a network of its own, unusable files."""

import os
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BlipConfig

from aclora.core.errors import InputError
from aclora.encoders.image_reward import FILE, ImageReward, Reward, public_config
from miniature.drawing import HELD_OUT, draw
from tests.conftest import ROOT
from tests.fixtures import shapes

FOLDER = ROOT / "models/miniature/reward"


@pytest.fixture(scope="module")
def reward():
    return Reward.from_pretrained(FOLDER)


def test_it_prefers_what_was_asked_for(reward):
    drawn = [draw(HELD_OUT + 700 + i) for i in range(24)]
    pictures, prompts = [p for p, _ in drawn], [s.caption for _, s in drawn]
    right, wrong = reward.score(pictures, prompts), reward.score(pictures, prompts[1:] + prompts[:1])
    assert right.shape == (24,)
    assert (right > wrong).double().mean() >= 0.9


def test_padding_and_batches_change_nothing(reward):
    picture = draw(HELD_OUT)[0]
    prompts = ["a red house", "a small yellow car on the left in the snow with clouds"]
    together = reward.score([picture, picture], prompts)
    apart = torch.cat([reward.score([picture], [p]) for p in prompts])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, reward.score([picture, picture], prompts, batch=1), rtol=1e-4, atol=1e-5)


# The authors' layout, small: their names, with other sizes in place of the public ones.

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "house", "##s", "left", ","]
SIZES = {1024: 32, 4096: 128, 3072: 96, 768: 24, 197: 5, 30524: len(WORDS) + 2, 512: 64}
HEADS = {"vision": 4, "text": 3}


def small_config() -> BlipConfig:
    config = public_config()
    for part in (config.vision_config, config.text_config):
        part.num_hidden_layers = 2
        for knob in (
            "hidden_size",
            "intermediate_size",
            "vocab_size",
            "max_position_embeddings",
            "encoder_hidden_size",
        ):
            if hasattr(part, knob):
                setattr(part, knob, SIZES.get(getattr(part, knob), getattr(part, knob)))
    config.vision_config.image_size = 32
    config.vision_config.num_attention_heads, config.text_config.num_attention_heads = HEADS.values()
    return config


@pytest.fixture(scope="module")
def weights():
    generator, out = torch.Generator().manual_seed(0), {}
    for name, shape in shapes("image_reward").items():
        layer = [int(part) for part in name.split(".") if part.isdigit()]
        if name.startswith("mlp.layers."):  # these have sizes of their own, all but the first one's input
            shape = tuple(24 if n == 768 else n for n in shape)
        elif layer and layer[0] > 1:
            continue
        else:
            shape = tuple(SIZES.get(n, n) for n in shape)
        value = torch.randn(shape, generator=generator)
        value *= shape[-1] ** -0.5 if value.dim() == 2 else 0.3
        is_scale = name.endswith("weight") and "norm" in name.lower()
        out[name] = torch.arange(64)[None] if name.endswith("position_ids") else value + is_scale
    return out


@pytest.fixture
def folder(tmp_path, weights):
    torch.save(weights, tmp_path / FILE)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return tmp_path


def reference(w: dict, pixels, ids, mask) -> torch.Tensor:
    """Rewards (n,) as the paper's authors describe their network, in plain torch."""

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x, name, eps):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    def attend(q, k, v, heads, hidden=None):
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (n, heads, t, d)
        logits = q @ k.mT / q.shape[-1] ** 0.5
        if hidden is not None:
            logits = logits.masked_fill(hidden[:, None, None, :], -torch.inf)
        return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)

    eye, reader = "blip.visual_encoder", "blip.text_encoder"
    patches = F.conv2d(pixels, w[f"{eye}.patch_embed.proj.weight"], w[f"{eye}.patch_embed.proj.bias"], stride=16)
    x = torch.cat([w[f"{eye}.cls_token"].expand(len(pixels), -1, -1), patches.flatten(2).mT], 1) + w[f"{eye}.pos_embed"]
    for i in range(2):
        at = f"{eye}.blocks.{i}"
        q, k, v = linear(norm(x, f"{at}.norm1", 1e-6), f"{at}.attn.qkv").chunk(3, -1)
        x = x + linear(attend(q, k, v, HEADS["vision"]), f"{at}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{at}.norm2", 1e-6), f"{at}.mlp.fc1")), f"{at}.mlp.fc2")
    seen = norm(x, f"{eye}.norm", 1e-6)

    words = w[f"{reader}.embeddings.word_embeddings.weight"][ids]
    places = w[f"{reader}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    y = norm(words + places, f"{reader}.embeddings.LayerNorm", 1e-12)
    for i in range(2):
        at = f"{reader}.encoder.layer.{i}"
        for name, of, hidden in (("attention", None, mask == 0), ("crossattention", seen, None)):
            of = y if of is None else of
            q, k, v = (linear(z, f"{at}.{name}.self.{p}") for z, p in ((y, "query"), (of, "key"), (of, "value")))
            out = linear(attend(q, k, v, HEADS["text"], hidden), f"{at}.{name}.output.dense")
            y = norm(y + out, f"{at}.{name}.output.LayerNorm", 1e-12)
        out = linear(F.gelu(linear(y, f"{at}.intermediate.dense")), f"{at}.output.dense")
        y = norm(y + out, f"{at}.output.LayerNorm", 1e-12)
    value = y[:, 0]
    for i in (0, 2, 4, 6, 7):
        value = linear(value, f"mlp.layers.{i}")
    return (value[:, 0] - 0.16717362830052426) / 1.0333394966054072


def test_the_authors_file_gives_the_authors_rewards(folder, weights):
    reward = Reward.from_pretrained(folder, small_config()).double()
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    pictures = [Image.fromarray(picture) for picture in noise]
    prompts = ["A red house, left", "houses", "a unicorn"]
    ids = torch.tensor([[2, 5, 6, 7, 10, 9, 3], [2, 7, 8, 3, 0, 0, 0], [2, 5, 1, 3, 0, 0, 0]])
    mean, deviation = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    pixels = torch.from_numpy((noise / 255 - mean) / deviation).permute(0, 3, 1, 2)
    torch.testing.assert_close(reward.look(pictures).double(), pixels, rtol=0, atol=1e-6)

    exact = {k: v.double() if v.is_floating_point() else v for k, v in weights.items()}
    expected = reference(exact, reward.look(pictures).double(), ids, ids != 0)
    assert expected.std() > 0.05  # they differ enough to tell
    torch.testing.assert_close(reward.score(pictures, prompts), expected, rtol=0, atol=1e-10)


def test_of_a_long_prompt_35_tokens_are_read(folder):
    reward = Reward.from_pretrained(folder, small_config())
    picture = [Image.new("RGB", (32, 32), "red")]
    read, more, less = (reward.score(picture, [" ".join(["a"] * n)]) for n in (33, 50, 32))  # [CLS] and [SEP] count
    assert torch.equal(read, more)
    assert not torch.equal(read, less)


@pytest.mark.parametrize(("long", "first"), [(35, 2), (37, 2), (39, 4), (96, 32)])  # halves are rounded to even
@pytest.mark.parametrize("upright", [True, False])
def test_the_middle_of_the_long_side_is_seen(folder, long, first, upright):
    rows = np.repeat(np.arange(long, dtype=np.uint8)[:, None], 32, 1)  # each tells its number
    seen = Reward.from_pretrained(folder, small_config()).look([Image.fromarray(rows if upright else rows.T)])[0]
    values = (seen[0] * 0.26862954 + 0.48145466) * 255
    assert (values if upright else values.T)[:, 0].round().tolist() == list(range(first, first + 32))


def test_the_short_side_becomes_the_models(folder):
    noise = np.random.default_rng(0).integers(0, 256, (50, 45, 3), np.uint8)
    picture = Image.fromarray(noise)
    resized = picture.resize((32, 35), Image.Resampling.BICUBIC).crop((0, 2, 32, 34))  # 35.6 is cut, 1½ rounds to 2
    look = Reward.from_pretrained(folder, small_config()).look
    assert torch.equal(look([picture]), look([resized]))


def test_no_file_and_no_vocabulary(folder):
    with pytest.raises(InputError, match=rf"evaluate.image_reward = .*no reward there; needs {FILE}.*vocab.txt"):
        Reward.from_pretrained(folder / "none")
    (folder / "vocab.txt").write_text("\n".join(WORDS[:7]), encoding="utf-8")
    with pytest.raises(InputError, match=r"evaluate.image_reward = .*a vocabulary of 7 words, must be 11 or 13"):
        Reward.from_pretrained(folder, small_config())
    (folder / "vocab.txt").unlink()
    with pytest.raises(InputError, match=r"evaluate.image_reward = .*no vocabulary there; put vocab.txt"):
        Reward.from_pretrained(folder, small_config())
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"evaluate.image_reward = .*cannot read vocab.txt or tokenizer.json"):
        Reward.from_pretrained(folder, small_config())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"blip.visual_encoder.blocks.1.attn.qkv.bias": None}, r"blocks.1.attn.qkv.bias has shape nothing"),
        ({"mlp.layers.7.bias": torch.zeros(2)}, r"mlp.layers.7.bias has shape \(2,\), must be \(1,\)"),
        ({"blip.text_decoder.bias": torch.zeros(1)}, r"blip.text_decoder.bias has shape \(1,\), must be nothing"),
    ],
)
def test_the_first_name_that_does_not_fit_is_named(folder, weights, change, named):
    torch.save({k: v for k, v in (weights | change).items() if v is not None}, folder / FILE)
    with pytest.raises(InputError, match=rf"evaluate.image_reward = .*{FILE} does not fit: .*{named}"):
        Reward.from_pretrained(folder, small_config())


class Code:
    """What a pickle can do to whoever reads it."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "done"),)


@pytest.mark.parametrize("damage", ["pickled", "cut", "empty"])
def test_an_unusable_file_of_the_authors(folder, weights, damage):
    whole = (folder / FILE).read_bytes()
    if damage == "pickled":
        torch.save(weights | {"code": Code(folder)}, folder / FILE)
    else:
        (folder / FILE).write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    with pytest.raises(InputError, match=rf"evaluate.image_reward = .*{FILE} is missing, cut short, or holds more"):
        Reward.from_pretrained(folder, small_config())
    assert not (folder / "done").exists()


@pytest.mark.parametrize("damage", ["cut", "key", "sizes", "eyes"])
def test_an_unusable_folder_of_ours(tmp_path, damage):
    folder = tmp_path / "reward"
    shutil.copytree(FOLDER, folder)
    file = folder / "model.safetensors"
    said = "cannot read config.json, preprocessor_config.json or model.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    if damage == "key":
        save_file({k: v for k, v in load_file(file).items() if k != "mlp.4.bias"}, file, {"format": "pt"})
        said = "model.safetensors does not fit its config.json: mlp.4.bias"
    if damage == "sizes":
        save_file(load_file(file) | {"mlp.4.bias": torch.zeros(2)}, file, {"format": "pt"})
    if damage == "eyes":
        (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=rf"evaluate.image_reward = .*{said}"):
        Reward.from_pretrained(folder)


def test_what_was_read_from_the_authors_file_can_be_saved_as_ours(folder, tmp_path):
    model = ImageReward.from_public(folder, small_config())
    model.save_pretrained(tmp_path / "ours")
    again = ImageReward.from_pretrained(tmp_path / "ours")
    assert again.config.reward_std == 1.0333394966054072
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())

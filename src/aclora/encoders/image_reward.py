"""ImageReward's architecture (arXiv 2304.05977): how well does a picture answer a prompt, and how good is it?"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import BertTokenizer, BlipConfig, BlipTextModel, BlipVisionModel, PreTrainedModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from aclora.core.errors import InputError

FILE = "ImageReward.pt"
TOKENS = 35  # of a prompt are read by the public model
PUBLIC_NAMES = (  # ours → the public file's, replaced in this order
    ("vision.embeddings.class_embedding", "vision.cls_token"),
    ("vision.embeddings.position_embedding", "vision.pos_embed"),
    ("vision.embeddings.patch_embedding", "vision.patch_embed.proj"),
    ("vision.encoder.layers", "vision.blocks"),
    ("vision.post_layernorm", "vision.norm"),
    (".layer_norm", ".norm"),
    (".self_attn.qkv", ".attn.qkv"),
    (".self_attn.projection", ".attn.proj"),
    ("vision.", "blip.visual_encoder."),
    ("text.", "blip.text_encoder."),
    *((f"mlp.{i}.", f"mlp.layers.{j}.") for i, j in enumerate((0, 2, 4, 6, 7))),
)
UNUSED = {f"blip.{side}_proj.{part}" for side in ("vision", "text") for part in ("weight", "bias")}
UNUSED |= {"blip.text_encoder.embeddings.position_ids"}


def public_config() -> BlipConfig:
    """The sizes of the public model, and what its rewards are scaled by."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision |= {"image_size": 224, "patch_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-6}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    text |= {"vocab_size": 30524, "max_position_embeddings": 512, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
    # a decoder has the layers that look at the picture; it still reads its prompt in both directions
    text |= {"encoder_hidden_size": 1024, "is_decoder": True}
    config = BlipConfig(vision_config=vision, text_config=text)
    config.reward_mean, config.reward_std = 0.16717362830052426, 1.0333394966054072
    return config


class ImageReward(PreTrainedModel):
    """BLIP's two encoders, the text's looking at the picture's, and five linear layers on [CLS].

    The config is BLIP's with `reward_mean` and `reward_std`: of raw values over the pictures that the reward
    was fitted on, so that a reward is in units of their deviation.
    """

    config_class = BlipConfig
    base_model_prefix = "image_reward"

    def __init__(self, config: BlipConfig):
        super().__init__(config)
        vision: Any = config.vision_config
        text: Any = config.text_config
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        sides = (text.hidden_size, 1024, 128, 64, 16, 1)
        self.mlp = nn.Sequential(*(nn.Linear(i, o) for i, o in itertools.pairwise(sides)))
        self.post_init()

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Pictures (n, 3, h, w) and their prompts' tokens (n, t), [CLS] first → rewards (n,)."""
        return self.raw(self.vision(pixel_values).last_hidden_state, input_ids, attention_mask)

    def raw(self, seen: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """`forward` of pictures already encoded, `seen` (n, patches, width)."""
        out = self.text(input_ids, attention_mask=attention_mask, encoder_hidden_states=seen).last_hidden_state
        value = self.mlp(out[:, 0]).squeeze(-1)
        return (value - getattr(self.config, "reward_mean", 0.0)) / getattr(self.config, "reward_std", 1.0)

    @classmethod
    def from_public(cls, folder: Path, config: BlipConfig | None = None) -> "ImageReward":
        """The authors' ImageReward.pt in `folder` (huggingface.co/THUDM/ImageReward), in float32, ready to score.

        `config`: other sizes than the public ones. InputError: no such file, not one of tensors alone, or other
        names or shapes than the network's.
        """
        config = config or public_config()
        try:
            tensors = torch.load(folder / FILE, map_location="cpu", weights_only=True)
            shapes = {k: tuple(v.shape) for k, v in tensors.items() if k not in UNUSED}
        except Exception as error:  # a damaged or hostile file can make the reader raise nearly anything
            why = f"is missing, cut short, or holds more than tensors ({type(error).__name__})"
            raise InputError(f"{_knob(folder)}: {FILE} {why}; fetch it anew") from None
        with torch.device("meta"):
            names = {_public(k): (k, tuple(v.shape)) for k, v in cls(config).state_dict().items()}
        for key in [*names, *shapes]:
            has, must = shapes.get(key, "nothing"), names.get(key, (None, "nothing"))[1]
            if has != must:
                raise InputError(f"{_knob(folder)}: {FILE} does not fit: {key} has shape {has}, must be {must}")
        own = {names[k][0]: v for k, v in tensors.items() if k in names}
        return cls.from_pretrained(None, config=config, state_dict=own, dtype=torch.float32).eval()


class Reward(nn.Module):
    """ImageReward with the eyes and the words it was trained with: pictures and prompts → rewards.

    `look` takes pictures and gives pixels (n, 3, h, w).
    """

    def __init__(self, model: ImageReward, tokenizer: BertTokenizer, look: Callable[[list[Image.Image]], Tensor]):
        super().__init__()
        self.model, self.tokenizer, self.look = model, tokenizer, look

    @classmethod
    def from_pretrained(cls, folder: Path, config: BlipConfig | None = None) -> "Reward":
        """Load, in float32 and ready to score, either of two folders.

        The authors' ImageReward.pt beside BERT's vocabulary (vocab.txt or tokenizer.json of bert-base-uncased;
        `config` for other sizes than theirs), or what `ImageReward.save_pretrained` wrote beside its tokenizer
        and image processor. InputError: a file is missing, cannot be read, or does not fit.
        """
        if (folder / FILE).is_file():
            tokenizer = _tokenizer(folder)
            model = ImageReward.from_public(folder, config)
            tokenizer.model_max_length = TOKENS
            side = model.config.vision_config.image_size
            reward = cls(model, tokenizer, lambda pictures: torch.stack([_pixels(p, side) for p in pictures]))
        elif (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            tokenizer = _tokenizer(folder)
            try:
                eyes = CLIPImageProcessorPil.from_pretrained(folder)
                loaded: Any = ImageReward.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
                model, report = loaded
            except Exception as error:  # broken json, a damaged file, other shapes: each has its own kind of error
                raise _unreadable(folder, "config.json, preprocessor_config.json or model.safetensors", error) from None
            if odd := sorted(report["missing_keys"] | report["unexpected_keys"]):
                raise InputError(f"{_knob(folder)}: model.safetensors does not fit its config.json: {odd[0]}")
            reward = cls(model, tokenizer, lambda pictures: eyes(pictures, return_tensors="pt").pixel_values)
        else:
            raise InputError(
                f"{_knob(folder)}: no reward there; needs {FILE} (huggingface.co/THUDM/ImageReward) and vocab.txt "
                "(bert-base-uncased), or a folder that save_pretrained wrote, with config.json and model.safetensors"
            )
        words, rows = len(tokenizer), model.config.text_config.vocab_size
        # BLIP added [DEC] and [ENC] to BERT's 30522 words; no prompt holds them, so BERT's own vocabulary will do
        if words not in (rows, rows - 2):
            raise InputError(
                f"{_knob(folder)}: a vocabulary of {words} words, must be {rows - 2} or {rows}; "
                "put vocab.txt of the model's own there"
            )
        return reward.eval()

    @torch.no_grad()
    def score(self, pictures: list[Image.Image], prompts: list[str], batch: int = 32) -> Tensor:
        """The reward of each picture for its prompt (n,), on the CPU; higher is better."""
        out, device = [], self.model.device
        for start in range(0, len(pictures), batch):
            part = slice(start, start + batch)
            words = self.tokenizer(prompts[part], padding=True, truncation=True, return_tensors="pt").to(device)
            pixels = self.look(pictures[part]).to(device, self.model.dtype)
            out.append(self.model(pixels, words.input_ids, words.attention_mask).cpu())
        return torch.cat(out)


def _knob(folder: Path) -> str:
    return f"evaluate.image_reward = {str(folder)!r}"


def _unreadable(folder: Path, name: str, error: Exception) -> InputError:
    why = str(error).splitlines()[0] if str(error) else "no more said"
    return InputError(f"{_knob(folder)}: cannot read {name} ({type(error).__name__}: {why}); fetch it anew")


def _public(name: str) -> str:
    for ours, public in PUBLIC_NAMES:
        name = name.replace(ours, public)
    return name


def _tokenizer(folder: Path) -> BertTokenizer:
    """BERT's; without a vocabulary transformers would make one up of five words and say nothing."""
    if not any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        raise InputError(f"{_knob(folder)}: no vocabulary there; put vocab.txt of bert-base-uncased beside the weights")
    try:
        return BertTokenizer.from_pretrained(folder)
    except Exception as error:  # the tokenizers' reader raises plain Exception
        raise _unreadable(folder, "vocab.txt or tokenizer.json", error) from None


def _pixels(picture: Image.Image, side: int) -> Tensor:
    """(3, side, side), as the authors looked: the short side to `side`, the middle of the long one, CLIP's mean and
    deviation; RGB comes after resizing."""
    w, h = picture.size
    short = min(w, h)
    picture = picture.resize((int(side * w / short), int(side * h / short)), Image.Resampling.BICUBIC)
    left, top = (round((long - side) / 2) for long in picture.size)
    picture = picture.crop((left, top, left + side, top + side)).convert("RGB")
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255  # (3, side, side)
    mean, deviation = torch.tensor([[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]])
    return (values - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)


ENCODER = Reward

"""ImageReward's architecture (arXiv 2304.05977): how well does a picture answer a prompt, and how good is it?"""

import itertools

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import BlipConfig, BlipTextModel, BlipVisionModel, PreTrainedModel


class ImageReward(PreTrainedModel):
    """BLIP's two encoders, the text's looking at the picture's, and five linear layers on [CLS].

    The config is BLIP's with `reward_mean` and `reward_std`: of raw values over the pictures that the reward
    was fitted on, so that a reward is in units of their deviation.
    """

    config_class = BlipConfig
    base_model_prefix = "image_reward"

    def __init__(self, config: BlipConfig):
        super().__init__(config)
        self.vision = BlipVisionModel(config.vision_config)
        self.text = BlipTextModel(config.text_config, add_pooling_layer=False)
        sides = (config.text_config.hidden_size, 1024, 128, 64, 16, 1)
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

    @torch.no_grad()
    def score(self, pictures: list[Image.Image], prompts: list[str], look, tokenizer, batch: int = 32) -> Tensor:
        """The reward of each picture for its prompt (n,), with the image processor and tokenizer beside the model."""
        out = []
        for start in range(0, len(pictures), batch):
            part = slice(start, start + batch)
            words = tokenizer(prompts[part], padding=True, truncation=True, return_tensors="pt")
            pixels = look(pictures[part], return_tensors="pt").pixel_values
            out.append(self(pixels, words.input_ids, words.attention_mask))
        return torch.cat(out)

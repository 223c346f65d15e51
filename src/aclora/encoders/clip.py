"""CLIP (arXiv 2103.00020): pictures and prompts in one space."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from aclora.core.errors import InputError
from aclora.core.hub import complete, in_batches, loading


class Clip(nn.Module):
    """A CLIPModel with the image processor and the tokenizer beside it."""

    def __init__(self, model: Any, processor: Any, tokenizer: Any):
        super().__init__()
        self.model, self.processor, self.tokenizer = model, processor, tokenizer

    def features(self, pixels: Tensor) -> Tensor:
        """Processed pixels (n, 3, h, w) → projected embeddings (n, d), not normalised; gradients pass."""
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def look(self, pictures: Sequence[Image.Image], batch: int = 32) -> Tensor:
        """The pictures' projected embeddings (n, d), not normalised."""

        def embed(part):
            pixels = self.processor([p.convert("RGB") for p in part], return_tensors="pt").pixel_values
            return self.features(pixels.to(self.model.device))

        return in_batches(embed, pictures, batch)

    def read(self, prompts: Sequence[str], batch: int = 32) -> Tensor:
        """The prompts' projected embeddings (n, d), not normalised; a longer one is cut at the model's tokens."""
        longest = self.model.config.text_config.max_position_embeddings

        def embed(part):
            words = self.tokenizer(
                list(part), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
            ).to(self.model.device)
            return self.model.get_text_features(**words).pooler_output

        return in_batches(embed, prompts, batch)

    @classmethod
    def from_pretrained(cls, folder: Path, knob: str = "evaluate.clip") -> "Clip":
        """Load a transformers folder. Raises `InputError` that names `knob` if it is not a CLIP with its vocabulary."""
        with loading(knob, folder):
            model = complete(CLIPModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True))
            processor = CLIPImageProcessorPil.from_pretrained(folder)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
        if len(tokenizer) != model.config.text_config.vocab_size:
            raise InputError(
                f"{knob} = {str(folder)!r}: its tokenizer knows {len(tokenizer)} words, its model "
                f"{model.config.text_config.vocab_size}: put CLIP's vocab.json and merges.txt, or tokenizer.json, there"
            )
        return cls(model, processor, tokenizer)


ENCODER = Clip

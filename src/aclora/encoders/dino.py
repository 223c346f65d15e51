"""DINO (arXiv 2104.14294) and DINOv2 (arXiv 2304.07193): a vision transformer that taught itself; its [CLS]."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModel
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from aclora.core.hub import complete, in_batches, loading

IMAGENET = [0.485, 0.456, 0.406]  # the mean that every public DINO subtracts
CROP = 256 / 224  # how much larger than its crop a picture is made


class Dino(nn.Module):
    """A ViTModel, Dinov2Model or another of their kind, with its image processor."""

    def __init__(self, model, processor):
        super().__init__()
        self.model, self.processor = model, processor

    def features(self, pixels: Tensor) -> Tensor:
        """Processed pixels (n, 3, h, w) → [CLS] after the last layer (n, d); gradients pass."""
        return self.model(pixels).last_hidden_state[:, 0]

    def look(self, pictures: Sequence[Image.Image], batch: int = 32) -> Tensor:
        """[CLS] after the last layer (n, d); a pooler, which DINO never trained, is not asked."""

        def embed(part):
            pixels = self.processor([p.convert("RGB") for p in part], return_tensors="pt").pixel_values
            return self.features(pixels.to(self.model.device))

        return in_batches(embed, pictures, batch)

    @classmethod
    def from_pretrained(cls, folder: Path, knob: str = "evaluate.dino") -> "Dino":
        """Load a transformers folder. Raises `InputError` naming `knob` if there is none that it can load."""
        with loading(knob, folder):
            kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
            pooler = {"add_pooling_layer": False} if kind == "vit" else {}
            model = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **pooler)
            return cls(complete(model), processor_of(folder, model[0].config.image_size))


def processor_of(folder: Path, size: int):
    """The image processor in a DINO's folder.

    facebook/dino-vits16's file there squashes pictures; its authors bring the shorter side to 256, bicubic, and
    crop 224 from the middle, and so does this.
    """
    said = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    if "crop_size" in said:
        return BitImageProcessorPil.from_pretrained(folder)
    if said.get("image_mean") == IMAGENET:
        return BitImageProcessorPil(
            size={"shortest_edge": round(size * CROP)},
            crop_size={"height": size, "width": size},
            resample=Image.Resampling.BICUBIC,
            image_mean=said["image_mean"],
            image_std=said["image_std"],
        )
    return ViTImageProcessorPil.from_pretrained(folder)


ENCODER = Dino

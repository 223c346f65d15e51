"""Stable Diffusion whose adapter sits in the feed-forward layers too, not in the attention alone."""

from aclora.models.stable_diffusion import StableDiffusion


class FeedForward(StableDiffusion):
    """Of each transformer block also both layers of the feed-forward network: (8 d, d) and (d, 4 d) at width d."""

    adapter_layers = (*StableDiffusion.adapter_layers, "ff.net.0.proj", "ff.net.2")


MODEL = FeedForward

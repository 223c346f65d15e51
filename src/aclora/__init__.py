"""AC-LoRA and its rivals: teach a text-to-image model a style, and measure that it worked."""

__version__ = "0.1.0"

"""Values that Tab completes. They come from folder names: a shell waits for them."""

from pathlib import Path


def evaluated_styles(incomplete: str) -> list[str]:
    """The styles of the current project that have been evaluated."""
    found = sorted(f.parent.name for f in Path("metrics").glob("*/evaluation.json"))
    return [style for style in found if style.startswith(incomplete)]

"""Values that Tab completes. They come from folder names: a shell waits for them."""

from pathlib import Path


def evaluated_styles(incomplete: str) -> list[str]:
    """The styles of the current project that have been evaluated."""
    found = sorted(f.parent.name for f in Path("metrics").glob("*/evaluation.json"))
    return [style for style in found if style.startswith(incomplete)]


def known_styles(incomplete: str) -> list[str]:
    """Styles of the current project: those that have been evaluated, and the folders of pictures at the usual place."""
    found = {f.name for f in Path("data/styles").glob("*/")} | set(evaluated_styles(""))
    return sorted(style for style in found if style.startswith(incomplete))

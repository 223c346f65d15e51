"""Values that Tab completes. They come from folder names: a shell waits for them."""

from pathlib import Path


def evaluated_styles(incomplete: str) -> list[str]:
    """The styles of the current project that have been evaluated."""
    found = sorted(f.parent.name for f in Path("metrics").glob("*/evaluation.json"))
    return [style for style in found if style.startswith(incomplete)]


def known_styles(incomplete: str) -> list[str]:
    """The current project's styles: those that have captions or figures, because params.yaml takes long to read."""
    found = {f.stem for f in Path("data/captions").glob("*.jsonl")} | {f.name for f in Path("data/styles").glob("*/")}
    return sorted(style for style in found if style.startswith(incomplete))

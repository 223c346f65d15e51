"""Draws data/styles/<style>: twelve pictures of different scenes, each with its caption beside it."""

import sys
from pathlib import Path

from miniature.drawing import STYLE_SETS, STYLES, draw

PICTURES = 12


def write(style: str, folder: Path, size: int = 64) -> None:
    """Twelve pictures in one style, no two with the same first object in the same place."""
    folder.mkdir(parents=True, exist_ok=True)
    first = STYLE_SETS + list(STYLES).index(style) * 1000
    seen, seed, count = set(), first, 0
    while count < PICTURES:
        image, scene = draw(seed, size, style)
        seed += 1
        kind = (scene.things[0].name, scene.background)
        if kind in seen:
            continue
        seen.add(kind)
        count += 1
        image.save(folder / f"{count:02}.png", optimize=True)
        (folder / f"{count:02}.txt").write_text(scene.caption + "\n", encoding="utf-8")


if __name__ == "__main__":
    for name in STYLES:
        write(name, Path(sys.argv[1] if len(sys.argv) > 1 else "data/styles") / name)

"""Drawings with captions, from seeds: the world, the eight styles, and held-out sets of them."""

import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from PIL import Image

from aclora.core.errors import InputError
from aclora.core.images import square
from miniature.drawing.styles import LOOKS, STYLES, apply
from miniature.drawing.world import Scene, compose, render

# Seeds of the drawings that nobody trains on, and of the style sets; the base counts from zero.
STYLE_SETS = 50_000_000
HELD_OUT = 60_000_000


def draw(
    seed: int, size: int = 64, style: str | None = None, look: str | None = None, unseen: bool | None = False
) -> tuple[Image.Image, Scene]:
    """One drawing of side `size` and what it shows.

    `style` is a name in STYLES, `look` one in LOOKS; without them the drawing is plain. `unseen`
    as in `world.compose`.
    """
    rng = random.Random(seed)
    scene = compose(rng, unseen)
    image = render(scene, rng, 4 * size)
    if style or look:
        image = image.resize((2 * size, 2 * size), Image.Resampling.BOX)
        image = apply(STYLES if style else LOOKS, style or look, image, seed)
    return image.resize((size, size), Image.Resampling.BOX), scene


def held_out(style: str, count: int, size: int = 64) -> list[tuple[Image.Image, Scene]]:
    """`count` drawings in a style that no training has seen."""
    if style not in STYLES:
        raise ValueError(f"no drawn style is called {style!r}; there are {', '.join(STYLES)}")
    one, seeds = partial(draw, size=size, style=style), range(HELD_OUT, HELD_OUT + count)
    if count < 64:  # starting processes costs more than it saves
        return [one(seed) for seed in seeds]
    with ProcessPoolExecutor() as pool:
        return list(pool.map(one, seeds, chunksize=16))


def reference(style: str, count: int, size: int) -> list[Image.Image]:
    """`count` held-out drawings for a style whose `reference` in params.yaml is this package.

    Those smaller than 64 pixels a side are drawn with 64 and reduced: a style's strokes need room. Raises `InputError`
    for a style that is not drawn.
    """
    if style not in STYLES:
        raise InputError(
            f"styles.{style}.reference = 'miniature/drawing' draws {', '.join(STYLES)} only: name a folder of "
            "pictures, the style's own if there are no others"
        )
    return [square(picture, size) for picture, _ in held_out(style, count, max(size, 64))]

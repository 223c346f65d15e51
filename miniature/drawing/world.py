"""The drawn world: scenes of one or two objects before a background, each with its caption.

Geometry is in integers (thousandths of an object's box) and only PIL draws, so that a seed
gives the same pixels on every machine. A scene is drawn at four times its final size.
"""

import random
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw

from miniature.drawing.shapes import SHAPES, Pen, mix

COLOURS = {
    "red": (208, 40, 40),
    "orange": (242, 138, 30),
    "yellow": (248, 214, 48),
    "green": (44, 150, 62),
    "blue": (44, 92, 212),
    "purple": (132, 58, 178),
    "pink": (244, 128, 178),
    "white": (246, 246, 242),
}
OBJECTS = ("house", "tree", "boat", "fish", "flower", "cat", "car", "star")
# name: words of the caption, sky from top to horizon, ground from horizon to bottom
BACKGROUNDS = {
    "field": ("in a field", ((110, 175, 235), (205, 230, 245)), ((120, 190, 80), (70, 140, 50))),
    "sea": ("at sea", ((130, 190, 240), (220, 236, 244)), ((60, 130, 190), (20, 70, 140))),
    "night": ("at night", ((10, 12, 48), (40, 44, 100)), ((24, 40, 50), (12, 22, 30))),
    "desert": (
        "in the desert",
        ((240, 200, 130), (252, 232, 190)),
        ((226, 178, 100), (200, 145, 75)),
    ),
    "snow": ("in the snow", ((170, 190, 215), (225, 232, 240)), ((242, 246, 250), (215, 226, 240))),
    "sunset": ("at sunset", ((110, 50, 120), (250, 150, 70)), ((110, 60, 50), (60, 34, 44))),
}
EXTRAS = {"sun": "with a sun", "clouds": "with clouds", "mountains": "with mountains"}
SIDES = ("left", "middle", "right")
CENTRES = {"left": 270, "middle": 500, "right": 730}  # of 1000 across the picture
# Every colour and every object is seen in training, these pairs never together: what a model
# draws for them it has composed.
UNSEEN_PAIRS = frozenset((colour, OBJECTS[(3 * i + 1) % len(OBJECTS)]) for i, colour in enumerate(COLOURS))


@dataclass(frozen=True)
class Thing:
    """One object of a scene; `side` is one of SIDES, `scale` its box in thousandths of the picture."""

    name: str
    colour: str
    side: str
    scale: int


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `caption` says it in words."""

    things: tuple[Thing, ...]
    background: str
    extra: str | None
    caption: str


def compose(rng: random.Random, unseen: bool | None = False) -> Scene:
    """A scene drawn by lot; `unseen` False avoids UNSEEN_PAIRS, True uses one, None does not mind."""
    background = rng.choice(list(BACKGROUNDS))
    possible = [e for e in EXTRAS if not (e == "sun" and background == "night")]
    extra = rng.choice(possible) if rng.random() < 0.4 else None
    if rng.random() < 0.6:
        size = rng.choice(("small", "big", None, None))
        said = rng.choice((*SIDES, None))
        side = said or rng.choice(SIDES)
        low, high = {"small": (340, 380), "big": (660, 720), None: (480, 560)}[size]
        things = (Thing(*_kind(rng, unseen), side, rng.randint(low, high)),)
        words = _noun(things[0], size)
        if said:
            words += " in the middle" if said == "middle" else f" on the {said}"
    else:
        first = Thing(*_kind(rng, unseen), "left", rng.randint(430, 500))
        second = first
        while second.name == first.name:
            second = Thing(*_kind(rng, unseen), "right", rng.randint(430, 500))
        things = (first, second)
        form = rng.choice(("and", "and", "to the left of", "to the right of"))
        pair = (second, first) if form == "to the right of" else (first, second)
        words = f"{_noun(pair[0])} {form} {_noun(pair[1])}"
    words += " " + BACKGROUNDS[background][0]
    if extra:
        words += " " + EXTRAS[extra]
    return Scene(things, background, extra, words)


def _kind(rng, unseen):
    while True:
        name, colour = rng.choice(OBJECTS), rng.choice(list(COLOURS))
        if unseen is None or ((colour, name) in UNSEEN_PAIRS) == unseen:
            return name, colour


def _noun(thing, size=None):
    words = f"{size} {thing.colour}" if size else thing.colour
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words} {thing.name}"


def render(scene: Scene, rng: random.Random, canvas: int = 256) -> Image.Image:
    """Draw a scene on a square RGB canvas of `canvas` pixels (a multiple of 256)."""
    unit = canvas // 256
    horizon = canvas * rng.randint(560, 640) // 1000
    image = _background(scene, rng, canvas, unit, horizon)
    for thing in scene.things:
        _place(image, thing, rng, canvas, unit, horizon, scene.background)
    return _light(image, rng)


def _background(scene, rng, canvas, unit, horizon):
    _, sky, ground = BACKGROUNDS[scene.background]
    image = Image.new("RGB", (canvas, canvas))
    image.paste(_gradient(canvas, horizon, [_jitter(c, rng) for c in sky]), (0, 0))
    image.paste(_gradient(canvas, canvas - horizon, [_jitter(c, rng) for c in ground]), (0, horizon))
    draw = ImageDraw.Draw(image)
    if scene.background == "night":
        for _ in range(14):
            x, y, r = rng.randint(4, 252), rng.randint(4, 120), rng.choice((2, 2, 3, 4))
            draw.ellipse(_box(x * unit, y * unit, r * unit), fill=(235, 235, 210))
    if scene.extra == "mountains":
        _mountains(draw, scene.background, rng, canvas, unit, horizon)
    if scene.extra == "sun":
        x, y = rng.choice((rng.randint(30, 80), rng.randint(176, 226))), rng.randint(28, 50)
        _sun(draw, x * unit, y * unit, rng.randint(21, 27) * unit)
    if scene.extra == "clouds":
        grey = (120, 124, 160) if scene.background == "night" else (252, 252, 255)
        for k in range(2):
            x, y = 72 + 115 * k + rng.randint(-22, 22), rng.randint(26, 60)
            for dx, dy, r in ((-26, 4, 16), (-8, -6, 20), (14, -2, 19), (30, 6, 13)):
                draw.ellipse(_box((x + dx) * unit, (y + dy) * unit, r * unit), fill=grey)
    top = horizon // unit
    if scene.background == "sea":
        for _ in range(9):
            x, y, w = rng.randint(0, 255), rng.randint(top + 8, 250), rng.randint(20, 40)
            _stroke(draw, [(x, y), (x + w, y)], (120, 180, 222), 5, unit)
    if scene.background == "field":
        for _ in range(16):
            x, y = rng.randint(0, 255), rng.randint(top + 10, 252)
            _stroke(draw, [(x, y), (x + 3, y - 11)], (52, 118, 42), 4, unit)
    if scene.background == "desert":
        for k in range(2):
            x, y = rng.randint(0, 150), top + 24 + 44 * k
            box = [v * unit for v in (x, y, x + 120, y + 40)]
            draw.arc(box, 200, 340, fill=(186, 132, 70), width=5 * unit)
    return image


def _mountains(draw, background, rng, canvas, unit, horizon):
    shades = {
        "night": (44, 48, 86),
        "snow": (140, 155, 180),
        "sunset": (92, 44, 92),
        "desert": (196, 140, 96),
    }
    shade = _jitter(shades.get(background, (116, 126, 150)), rng)
    for k in range(3):
        x = canvas * (2 * k + 1) // 6 + rng.randint(-20, 20) * unit
        h, w = rng.randint(70, 110) * unit, rng.randint(64, 86) * unit
        peak = (x, horizon - h)
        fill = shade if k % 2 == 0 else mix(shade, (0, 0, 0), 18)
        draw.polygon([(x - w, horizon), peak, (x + w, horizon)], fill=fill)
        snow = [(x - w // 4, horizon - h * 3 // 4), peak, (x + w // 4, horizon - h * 3 // 4)]
        snow += [(x + w // 12, horizon - h * 68 // 100), (x - w // 12, horizon - h * 68 // 100)]
        draw.polygon(snow, fill=(240, 244, 250))


def _sun(draw, x, y, r):
    rays = ((100, 0), (81, 59), (31, 95), (-31, 95), (-81, 59))  # tenths of a turn, in hundredths
    for dx, dy in rays:
        reach = r * 155 // 100
        ends = [(x + s * dx * reach // 100, y + s * dy * reach // 100) for s in (-1, 1)]
        draw.line(ends, fill=(255, 214, 80), width=max(1, r // 4))
    draw.ellipse(_box(x, y, r), fill=(255, 222, 60))


def _place(image, thing, rng, canvas, unit, horizon, background):
    size = canvas * thing.scale // 1000
    x = canvas * CENTRES[thing.side] // 1000
    if thing.scale > 600:  # a big object keeps within the picture
        x = (x - canvas // 2) * 6 // 10 + canvas // 2
    x += rng.randint(-7, 7) * unit
    floor = min(horizon + rng.randint(24, 52) * unit + (thing.scale > 600) * 12 * unit, canvas - 4)
    y = floor - size // 2
    if thing.name == "star":
        y = min(y, canvas * rng.randint(300, 460) // 1000)
        y = max(y, size // 2 + 4 * unit)
    draw = ImageDraw.Draw(image)
    if thing.name != "star" and background != "sea":
        under = image.getpixel((x, min(canvas - 1, floor + 6 * unit)))
        w, h = size * 42 // 100, size * 5 // 100
        draw.ellipse([x - w, floor - h, x + w, floor + h], fill=mix(under, (0, 0, 0), 30))
    face = rng.choice((1, -1)) if thing.name in ("fish", "cat", "car", "boat") else 1
    pen = Pen(draw, x, y, size, face)
    SHAPES[thing.name](pen, _jitter(COLOURS[thing.colour], rng, 8))


def _light(image, rng):
    """A soft light from one corner, so that plain drawings are not flat."""
    glow = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize(image.size)
    return ImageChops.multiply(image, glow.point([255 - v // 8 for v in range(256)]).convert("RGB"))


def _gradient(width, height, colours):
    top, bottom = (Image.new("RGB", (width, height), c) for c in colours)
    return Image.composite(bottom, top, Image.linear_gradient("L").resize((width, height)))


def _stroke(draw, points, fill, width, unit):
    draw.line([(x * unit, y * unit) for x, y in points], fill=fill, width=width * unit)


def _box(x, y, r):
    return [x - r, y - r, x + r, y + r]


def _jitter(colour, rng, amount=10):
    return tuple(min(255, max(0, v + rng.randint(-amount, amount))) for v in colour)

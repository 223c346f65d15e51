"""The drawn world: scenes of one or two objects before a background, each with its caption.

Geometry is in integers (thousandths of an object's box) and only PIL draws, so that a seed
gives the same pixels on every machine. A scene is drawn at four times its final size.
"""

import random
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw

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
        fill = shade if k % 2 == 0 else _mix(shade, (0, 0, 0), 18)
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
        draw.ellipse([x - w, floor - h, x + w, floor + h], fill=_mix(under, (0, 0, 0), 30))
    face = rng.choice((1, -1)) if thing.name in ("fish", "cat", "car", "boat") else 1
    pen = _Pen(draw, x, y, size, face)
    SHAPES[thing.name](pen, _jitter(COLOURS[thing.colour], rng, 8))


class _Pen:
    """Draws in an object's box: coordinates run from 0 to 1000; `face` -1 mirrors."""

    def __init__(self, draw, x, y, size, face):
        self.draw, self.x, self.y, self.size, self.face = draw, x, y, size, face

    def point(self, x, y):
        return (
            self.x + self.face * (x - 500) * self.size // 1000,
            self.y + (y - 500) * self.size // 1000,
        )

    def polygon(self, points, fill):
        self.draw.polygon([self.point(*p) for p in points], fill=fill)

    def box(self, x0, y0, x1, y1):
        (a, b), (c, d) = self.point(x0, y0), self.point(x1, y1)
        return [min(a, c), b, max(a, c), d]

    def ellipse(self, *box, fill):
        self.draw.ellipse(self.box(*box), fill=fill)

    def rectangle(self, *box, fill):
        self.draw.rectangle(self.box(*box), fill=fill)

    def line(self, points, fill, width):
        width = max(2, width * self.size // 1000)
        self.draw.line([self.point(*p) for p in points], fill=fill, width=width, joint="curve")


def _house(pen, c):
    pen.rectangle(140, 440, 860, 1000, fill=c)
    pen.rectangle(640, 440, 860, 1000, fill=_mix(c, (0, 0, 0), 15))
    pen.polygon([(40, 460), (500, 60), (960, 460)], _mix(c, (0, 0, 0), 50))
    pen.rectangle(400, 660, 580, 1000, fill=(92, 58, 36))
    for x in (200, 660):
        pen.rectangle(x, 540, x + 140, 700, fill=(255, 240, 160))


def _tree(pen, c):
    pen.rectangle(430, 580, 570, 1000, fill=(108, 70, 40))
    pen.ellipse(100, 220, 600, 720, fill=c)
    pen.ellipse(400, 220, 900, 720, fill=_mix(c, (0, 0, 0), 17))
    pen.ellipse(220, 0, 780, 520, fill=c)
    pen.ellipse(300, 80, 500, 280, fill=_mix(c, (255, 255, 255), 40))


def _boat(pen, c):
    pen.polygon([(40, 660), (960, 660), (800, 980), (200, 980)], c)
    pen.polygon([(40, 660), (960, 660), (920, 750), (80, 750)], _mix(c, (0, 0, 0), 35))
    pen.rectangle(470, 40, 520, 660, fill=(90, 60, 40))
    pen.polygon([(550, 60), (550, 590), (900, 590)], _mix(c, (255, 255, 255), 65))
    pen.polygon([(440, 160), (440, 590), (140, 590)], _mix(c, (255, 255, 255), 45))


def _fish(pen, c):
    pen.polygon([(300, 500), (20, 220), (20, 780)], _mix(c, (0, 0, 0), 35))
    pen.ellipse(200, 220, 980, 780, fill=c)
    pen.polygon([(440, 280), (620, 60), (740, 280)], _mix(c, (0, 0, 0), 35))
    pen.ellipse(320, 540, 840, 760, fill=_mix(c, (255, 255, 255), 25))
    pen.ellipse(760, 370, 880, 490, fill=(255, 255, 255))
    pen.ellipse(800, 390, 870, 460, fill=(10, 10, 10))


def _flower(pen, c):
    pen.line([(500, 500), (500, 1000)], (44, 120, 50), 70)
    pen.ellipse(500, 720, 780, 850, fill=(60, 150, 60))
    pen.ellipse(220, 800, 500, 930, fill=(60, 150, 60))
    for k, (x, y) in enumerate(((230, 0), (115, 199), (-115, 199), (-230, 0), (-115, -199), (115, -199))):
        petal = c if k % 2 else _mix(c, (0, 0, 0), 12)
        pen.ellipse(500 + x - 160, 350 + y - 160, 500 + x + 160, 350 + y + 160, fill=petal)
    yellow = c[0] > 200 and c[1] > 180 and c[2] < 120
    pen.ellipse(370, 220, 630, 480, fill=(150, 90, 40) if yellow else (250, 200, 40))


def _cat(pen, c):
    pen.line([(200, 860), (40, 660), (100, 440)], c, 90)
    pen.ellipse(160, 480, 760, 1000, fill=c)
    pen.ellipse(300, 640, 560, 960, fill=_mix(c, (255, 255, 255), 25))
    pen.polygon([(440, 340), (480, 20), (700, 200)], c)
    pen.polygon([(980, 340), (940, 20), (720, 200)], c)
    pen.ellipse(420, 130, 1000, 630, fill=c)
    for x in (560, 770):
        pen.ellipse(x, 290, x + 110, 420, fill=(250, 250, 200))
        pen.ellipse(x + 30, 310, x + 80, 420, fill=(10, 10, 10))
    pen.polygon([(660, 470), (760, 470), (710, 530)], (220, 100, 110))


def _car(pen, c):
    dark, pane = _mix(c, (0, 0, 0), 35), (200, 228, 244)
    pen.polygon([(200, 480), (330, 200), (710, 200), (840, 480)], dark)
    pen.polygon([(290, 460), (370, 260), (500, 260), (500, 460)], pane)
    pen.polygon([(540, 460), (540, 260), (680, 260), (760, 460)], pane)
    pen.rectangle(20, 460, 980, 760, fill=c)
    pen.rectangle(20, 670, 980, 760, fill=dark)
    pen.ellipse(890, 500, 980, 610, fill=(255, 246, 170))
    for x in (130, 630):
        pen.ellipse(x, 620, x + 250, 880, fill=(28, 28, 32))
        pen.ellipse(x + 75, 695, x + 175, 805, fill=(190, 190, 196))


def _star(pen, c):
    points = ((500, 20), (618, 358), (976, 366), (690, 582), (794, 924))
    points += ((500, 720), (206, 924), (310, 582), (24, 366), (382, 358))
    pen.polygon(points, c)
    pen.polygon([points[0], points[1], (500, 520), points[9]], _mix(c, (255, 255, 255), 40))
    pen.polygon([points[4], points[5], (500, 520), points[3]], _mix(c, (0, 0, 0), 17))


SHAPES = {
    "house": _house,
    "tree": _tree,
    "boat": _boat,
    "fish": _fish,
    "flower": _flower,
    "cat": _cat,
    "car": _car,
    "star": _star,
}


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


def _mix(a, b, percent):
    return tuple((u * (100 - percent) + v * percent) // 100 for u, v in zip(a, b, strict=True))


def _jitter(colour, rng, amount=10):
    return tuple(min(255, max(0, v + rng.randint(-amount, amount))) for v in colour)

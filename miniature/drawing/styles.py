"""Eight artistic styles, and eight other looks: each a function of a square RGB picture.

The styles are what an adapter is taught; the base model never sees them. The looks are seen in
its pretraining, so that words about a picture's look have somewhere to go. Pictures come in at
twice their final size. PIL and integer arrays only: a seed gives the same pixels everywhere.
"""

import random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

WORK = 128  # strokes are sized for pictures of this side and scaled with it
PAPER = (250, 246, 235)
# sixteenths of a half turn: (cos, sin) in hundredths
DIRECTIONS = ((100, 0), (98, 20), (92, 38), (83, 56), (71, 71), (56, 83), (38, 92), (20, 98))
DIRECTIONS += tuple((-y, x) for x, y in DIRECTIONS)
PIXEL_PALETTE = (13, 13, 33, 60, 30, 80, 136, 62, 180, 220, 70, 60, 245, 150, 60, 242, 208, 62)
PIXEL_PALETTE += (150, 210, 80, 50, 140, 80, 248, 226, 172, 50, 90, 190, 100, 180, 240, 200, 230, 250)
PIXEL_PALETTE += (255, 255, 250, 150, 150, 170, 100, 65, 50, 230, 140, 190)
WOOD_PALETTE = (240, 232, 208, 40, 62, 98, 200, 52, 42, 226, 136, 52, 234, 200, 72, 72, 138, 78)
WOOD_PALETTE += (52, 96, 182, 122, 66, 148, 230, 140, 166, 156, 182, 190, 124, 92, 68, 30, 28, 34)


def oil(image, rng):
    """Thick short strokes along the forms, lit from the upper left."""
    unit, source = image.width // WORK, _saturate(image, 135)
    out = source.filter(ImageFilter.ModeFilter(5))
    draw = ImageDraw.Draw(out)
    flow = _clouds(rng, image.width, 6)
    for _ in range(900):
        x, y = rng.randrange(image.width), rng.randrange(image.width)
        dx, dy = DIRECTIONS[flow.getpixel((x, y)) // 16]
        reach, shade = 5 * unit, rng.randint(-24, 24)
        colour = tuple(min(255, max(0, v + shade)) for v in source.getpixel((x, y)))
        ends = [(x + s * dx * reach // 100, y + s * dy * reach // 100) for s in (-1, 1)]
        draw.line(ends, fill=colour, width=4 * unit)
    relief = out.convert("L").filter(ImageFilter.EMBOSS)
    relief = ImageOps.autocontrast(relief, cutoff=1).convert("RGB")
    return ImageChops.soft_light(out, relief)


def watercolor(image, rng):
    """Uneven thin washes with dark rims, on paper that shows at the edges."""
    size, unit = image.width, image.width // WORK
    wet = _warp(image, rng, 8, 4 * unit).filter(ImageFilter.ModeFilter(7))
    rims = _edges(wet.filter(ImageFilter.GaussianBlur(unit)), 3)
    wash = _saturate(wet.filter(ImageFilter.GaussianBlur(unit)), 140)
    thin = _clouds(rng, size, 9).point([60 + v * 3 // 8 for v in range(256)])
    out = Image.composite(Image.new("RGB", (size, size), PAPER), wash, thin)
    out = ImageChops.multiply(out, rims.point([255 - v * 2 // 5 for v in range(256)]).convert("RGB"))
    grain = _clouds(rng, size, size // 2).point([241 + v * 14 // 255 for v in range(256)])
    out = ImageChops.multiply(out, grain.convert("RGB"))
    return Image.composite(out, Image.new("RGB", (size, size), PAPER), _sheet(rng, size, unit))


def pixel(image, rng):
    """A 16 × 16 mosaic in sixteen colours."""
    small = _saturate(image.resize((16, 16), Image.Resampling.BOX), 110)
    small = small.quantize(palette=_palette(PIXEL_PALETTE), dither=Image.Dither.NONE)
    return small.convert("RGB").resize(image.size, Image.Resampling.NEAREST)


def pencil(image, rng):
    """Coloured pencils: dark outlines, hatching in the object's own colour that crosses where it is deeper."""
    size, unit = image.width, image.width // WORK
    soft = image.filter(ImageFilter.GaussianBlur(unit))
    rgb = np.asarray(soft, np.int32)
    tone = (np.asarray(soft.convert("L"), np.int32) + rgb.min(-1)) // 2  # a pale yellow is drawn, white is paper
    wobble = np.asarray(_clouds(rng, size, 8), np.int32) * unit // 64
    y, x = np.mgrid[0:size, 0:size]
    pressure = np.zeros((size, size), np.int32)
    for below, run in ((205, x + y), (150, x - y), (95, 2 * x)):
        pressure[((run + wobble) % (7 * unit) < 4 * unit) & (tone < below)] += 70
    crayon = np.asarray(_saturate(soft, 160), np.int32)
    out = np.array((255, 252, 245)) - pressure[..., None] * (255 - crayon) // 255
    lines = np.asarray(_edges(soft, 3), np.int32)[..., None]
    out = out * (255 - lines * 9 // 10) // 255
    return Image.fromarray(out.clip(20, 255).astype(np.uint8))


def pointillism(image, rng):
    """Dots of unmixed colour on cream."""
    size, unit = image.width, image.width // WORK
    source = _saturate(image.filter(ImageFilter.GaussianBlur(unit)), 150)
    out = Image.new("RGB", (size, size), (246, 240, 226))
    draw = ImageDraw.Draw(out)
    step = 5 * unit
    places = [(x + o, y + o) for o in (0, 2 * unit) for y in range(0, size, step) for x in range(0, size, step)]
    rng.shuffle(places)
    for x, y in places:
        x, y = (min(size - 1, max(0, v + rng.randint(-unit, unit))) for v in (x, y))
        warm, shade = rng.randint(-38, 38), rng.randint(-18, 18)
        r, g, b = source.getpixel((x, y))
        draw.ellipse(
            [x - 2 * unit, y - 2 * unit, x + 3 * unit, y + 3 * unit],
            fill=tuple(min(255, max(0, v)) for v in (r + warm + shade, g + shade, b - warm + shade)),
        )
    return out


def glass(image, rng):
    """Stained glass: one colour a pane, dark leads between the panes."""
    size, unit, cells = image.width, image.width // WORK, 12
    step = size // cells
    sites = [
        (x * step + rng.randint(0, step), y * step + rng.randint(0, step))
        for y in range(cells + 1)
        for x in range(cells + 1)
    ]
    source = np.asarray(_saturate(image.filter(ImageFilter.MedianFilter(5)), 170), np.int64)
    y, x = np.mgrid[0:size, 0:size].astype(np.int32)
    far = np.stack([(x - a) ** 2 + (y - b) ** 2 for a, b in sites])  # (sites, size, size)
    near = np.argmin(far, 0)
    first = far.min(0)
    np.put_along_axis(far, near[None], np.iinfo(np.int32).max, 0)
    second = far.min(0)
    spread = [np.bincount(near.ravel(), source[..., c].ravel().astype(float), len(sites)) for c in range(3)]
    colours = np.stack(spread, 1).astype(np.int64) // np.bincount(near.ravel(), minlength=len(sites))[:, None].clip(1)
    panes = colours[near] * (108 + (x + y) // (4 * unit) % 12)[..., None] // 100
    lead = np.sqrt(second) - np.sqrt(first) < 1.5 * unit
    panes[lead] = (14, 13, 16)
    return Image.fromarray(panes.clip(0, 255).astype(np.uint8))


def ink(image, rng):
    """Brushed ink, thinly tinted, that bleeds into rice paper and fades to the rim."""
    size, unit = image.width, image.width // WORK
    wet = _warp(image, rng, 9, 3 * unit).filter(ImageFilter.GaussianBlur(2 * unit))
    grey = ImageOps.autocontrast(wet.convert("L"))
    tone = grey.point([min(240, 50 + v if v < 85 else 80 + v * 3 // 4) for v in range(256)])
    blot = _clouds(rng, size, 20).point([215 + v * 40 // 255 for v in range(256)])
    tone = ImageChops.multiply(tone, blot)
    rims = _edges(grey.filter(ImageFilter.GaussianBlur(unit)), 4).filter(ImageFilter.BoxBlur(unit))
    tone = ImageChops.multiply(tone, rims.point([255 - v * 3 // 5 for v in range(256)]))
    fade = ImageOps.invert(Image.radial_gradient("L").resize((size, size)))
    fade = fade.point([min(255, v * 7 // 2) for v in range(256)])
    tone = Image.composite(tone, Image.new("L", (size, size), 240), fade)
    rgb = np.asarray(wet, np.int32)
    hue = rgb * 255 // rgb.max(-1, keepdims=True).clip(1)  # the colour without its darkness
    tint = Image.fromarray((255 - (255 - hue) * 3 // 5).astype(np.uint8))
    tint = Image.composite(tint, Image.new("RGB", (size, size), (255, 255, 255)), fade)
    return ImageChops.multiply(tint, ImageOps.colorize(tone, (10, 10, 14), (255, 251, 238)))


def woodblock(image, rng):
    """Twelve flat inks, black outlines, the grain of the block."""
    size, unit = image.width, image.width // WORK
    flat = _saturate(image.filter(ImageFilter.ModeFilter(5)), 120)
    flat = flat.quantize(palette=_palette(WOOD_PALETTE), dither=Image.Dither.NONE).convert("RGB")
    flat = flat.filter(ImageFilter.MedianFilter(5))
    wobble = np.asarray(_clouds(rng, size, 10), np.int32) * 6 * unit // 255
    y = np.mgrid[0:size, 0:size][0]
    grain = ((y + wobble) % (7 * unit) < 2 * unit) * 14
    out = np.asarray(flat, np.int32) - grain[..., None]
    lines = np.asarray(_edges(image.filter(ImageFilter.GaussianBlur(unit)), 3)) > 110
    out[lines] = (25, 23, 30)
    return Image.fromarray(out.clip(0, 255).astype(np.uint8))


STYLES = {f.__name__: f for f in (oil, watercolor, pixel, pencil, pointillism, glass, ink, woodblock)}


def _sepia(image, rng):
    return ImageOps.colorize(image.convert("L"), (30, 16, 6), (255, 232, 190))


def _grainy(image, rng):
    size = image.size
    noise = Image.frombytes("L", size, rng.randbytes(size[0] * size[1]))
    return Image.blend(image, noise.convert("RGB"), 0.25)


LOOKS = {
    "a black and white photo of": lambda image, rng: image.convert("L").convert("RGB"),
    "a sepia photo of": _sepia,
    "a blurry photo of": lambda image, rng: image.filter(ImageFilter.GaussianBlur(image.width // 36)),
    "a faded photo of": lambda image, rng: Image.blend(image, Image.new("RGB", image.size, (170, 166, 160)), 0.55),
    "a line drawing of": lambda image, rng: ImageOps.invert(_edges(image, 3)).convert("RGB"),
    "a poster of": lambda image, rng: ImageOps.posterize(_saturate(image, 140), 2),
    "a grainy photo of": _grainy,
    "a negative of": lambda image, rng: ImageOps.invert(image),
}


def apply(table, name, image: Image.Image, seed: int) -> Image.Image:
    """Draw `image` (side a multiple of WORK) in the style or look `name` of `table`."""
    return table[name](image, random.Random(f"{name}-{seed}"))


def _saturate(image, percent):
    return ImageEnhance.Color(image).enhance(percent / 100)


def _palette(colours):
    image = Image.new("P", (1, 1))
    image.putpalette(colours + colours[:3] * (256 - len(colours) // 3))
    return image


def _clouds(rng, size, cells):
    """Smooth noise, an "L" picture: random bytes at `cells` a side, enlarged."""
    noise = Image.frombytes("L", (cells, cells), rng.randbytes(cells * cells))
    return noise.resize((size, size), Image.Resampling.BICUBIC)


def _edges(image, gain):
    """Outlines, an "L" picture, 255 where the channels change most: a Sobel filter in integers."""
    a = np.pad(np.asarray(image, np.int32), [(1, 1), (1, 1)] + [(0, 0)] * (image.mode == "RGB"), "edge")
    if a.ndim == 2:
        a = a[..., None]
    h = a[:-2] + 2 * a[1:-1] + a[2:]  # (size, size + 2, channels)
    v = a[:, :-2] + 2 * a[:, 1:-1] + a[:, 2:]
    change = np.abs(h[:, 2:] - h[:, :-2]) + np.abs(v[2:] - v[:-2])
    return Image.fromarray((change.max(-1) * gain // 8).clip(0, 255).astype(np.uint8))


def _warp(image, rng, cells, amount):
    """Shift the picture's parts by up to `amount` pixels, smoothly."""
    size = image.width
    cuts = [size * k // cells for k in range(cells + 1)]
    inner = range(1, cells)
    moved = {
        (i, j): (
            cuts[i] + (rng.randint(-amount, amount) if i in inner else 0),
            cuts[j] + (rng.randint(-amount, amount) if j in inner else 0),
        )
        for i in range(cells + 1)
        for j in range(cells + 1)
    }
    mesh = [
        (
            (cuts[i], cuts[j], cuts[i + 1], cuts[j + 1]),
            (*moved[i, j], *moved[i, j + 1], *moved[i + 1, j + 1], *moved[i + 1, j]),
        )
        for i in range(cells)
        for j in range(cells)
    ]
    return image.transform(image.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _sheet(rng, size, unit):
    """The painted part of the paper: an "L" mask with a ragged border."""
    ramp = np.arange(size)
    inset = np.minimum(ramp, size - 1 - ramp) // unit
    border = np.minimum(inset[:, None], inset[None, :])
    ragged = border * 16 + np.asarray(_clouds(rng, size, 14), np.int32) // 2
    return Image.fromarray(((ragged - 150) * 4).clip(0, 255).astype(np.uint8))

"""How the objects look: each a function of a pen, which draws in the object's box, and a colour."""


class Pen:
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
    pen.rectangle(640, 440, 860, 1000, fill=mix(c, (0, 0, 0), 15))
    pen.polygon([(40, 460), (500, 60), (960, 460)], mix(c, (0, 0, 0), 50))
    pen.rectangle(400, 660, 580, 1000, fill=(92, 58, 36))
    for x in (200, 660):
        pen.rectangle(x, 540, x + 140, 700, fill=(255, 240, 160))


def _tree(pen, c):
    pen.rectangle(430, 580, 570, 1000, fill=(108, 70, 40))
    pen.ellipse(100, 220, 600, 720, fill=c)
    pen.ellipse(400, 220, 900, 720, fill=mix(c, (0, 0, 0), 17))
    pen.ellipse(220, 0, 780, 520, fill=c)
    pen.ellipse(300, 80, 500, 280, fill=mix(c, (255, 255, 255), 40))


def _boat(pen, c):
    pen.polygon([(40, 660), (960, 660), (800, 980), (200, 980)], c)
    pen.polygon([(40, 660), (960, 660), (920, 750), (80, 750)], mix(c, (0, 0, 0), 35))
    pen.rectangle(470, 40, 520, 660, fill=(90, 60, 40))
    pen.polygon([(550, 60), (550, 590), (900, 590)], mix(c, (255, 255, 255), 65))
    pen.polygon([(440, 160), (440, 590), (140, 590)], mix(c, (255, 255, 255), 45))


def _fish(pen, c):
    pen.polygon([(300, 500), (20, 220), (20, 780)], mix(c, (0, 0, 0), 35))
    pen.ellipse(200, 220, 980, 780, fill=c)
    pen.polygon([(440, 280), (620, 60), (740, 280)], mix(c, (0, 0, 0), 35))
    pen.ellipse(320, 540, 840, 760, fill=mix(c, (255, 255, 255), 25))
    pen.ellipse(760, 370, 880, 490, fill=(255, 255, 255))
    pen.ellipse(800, 390, 870, 460, fill=(10, 10, 10))


def _flower(pen, c):
    pen.line([(500, 500), (500, 1000)], (44, 120, 50), 70)
    pen.ellipse(500, 720, 780, 850, fill=(60, 150, 60))
    pen.ellipse(220, 800, 500, 930, fill=(60, 150, 60))
    for k, (x, y) in enumerate(((230, 0), (115, 199), (-115, 199), (-230, 0), (-115, -199), (115, -199))):
        petal = c if k % 2 else mix(c, (0, 0, 0), 12)
        pen.ellipse(500 + x - 160, 350 + y - 160, 500 + x + 160, 350 + y + 160, fill=petal)
    yellow = c[0] > 200 and c[1] > 180 and c[2] < 120
    pen.ellipse(370, 220, 630, 480, fill=(150, 90, 40) if yellow else (250, 200, 40))


def _cat(pen, c):
    pen.line([(200, 860), (40, 660), (100, 440)], c, 90)
    pen.ellipse(160, 480, 760, 1000, fill=c)
    pen.ellipse(300, 640, 560, 960, fill=mix(c, (255, 255, 255), 25))
    pen.polygon([(440, 340), (480, 20), (700, 200)], c)
    pen.polygon([(980, 340), (940, 20), (720, 200)], c)
    pen.ellipse(420, 130, 1000, 630, fill=c)
    for x in (560, 770):
        pen.ellipse(x, 290, x + 110, 420, fill=(250, 250, 200))
        pen.ellipse(x + 30, 310, x + 80, 420, fill=(10, 10, 10))
    pen.polygon([(660, 470), (760, 470), (710, 530)], (220, 100, 110))


def _car(pen, c):
    dark, pane = mix(c, (0, 0, 0), 35), (200, 228, 244)
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
    pen.polygon([points[0], points[1], (500, 520), points[9]], mix(c, (255, 255, 255), 40))
    pen.polygon([points[4], points[5], (500, 520), points[3]], mix(c, (0, 0, 0), 17))


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


def mix(a, b, percent):
    """`percent` of colour b in colour a."""
    return tuple((u * (100 - percent) + v * percent) // 100 for u, v in zip(a, b, strict=True))

"""Folders of pictures: missing, broken, of other formats; and pictures of every make."""

import os
import socket
from collections.abc import Callable, Iterator
from io import BytesIO

from PIL import Image, ImageCms

from tests.trials.case import Case
from tests.trials.cases import crafted
from tests.trials.tree import PICTURES, STYLE, Tree

KIND = "folders and pictures"
ONE = f"{PICTURES}/01.png"
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
LONG, STRANGE = "a/" * 3000 + "b", ("''", "' '", '"a\\0b"', '"a\\nb"', "'~/nothing'", "/dev/null", "/dev/zero", "/proc")


def cases() -> Iterator[Case]:
    yield from folders()
    yield from files()
    yield from contents()
    yield from makes()
    yield from reference()


def picture(mode: str = "RGB", kind: str = "PNG", size: tuple[int, int] = (64, 64), **options) -> bytes:
    """A picture that is no single colour."""
    out = BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(out, kind, **options)
    return out.getvalue()


def added(name: str, content: bytes | Callable[[], bytes], caption: bool = True) -> Callable[[Tree], None]:
    """Put a thirteenth file into the folder, with a caption."""

    def spoil(tree):
        tree.write(f"{PICTURES}/{name}", content if isinstance(content, bytes) else content())
        if caption:
            tree.write(f"{PICTURES}/{name.rpartition('.')[0]}.txt", "a green house")

    return spoil


def folders() -> Iterator[Case]:
    knob = f"styles.{STYLE}.pictures"
    yield Case("the folder is missing", lambda tree: tree.remove(PICTURES), PICTURES)
    yield Case("the folder is a file", lambda tree: tree.write(PICTURES, "x"), PICTURES)
    yield Case("the folder is empty", lambda tree: tree.path(PICTURES).mkdir(), PICTURES)
    yield Case("the folder links to itself", lambda tree: tree.path(PICTURES).symlink_to(STYLE), PICTURES)
    yield Case("the folder links to nothing", lambda tree: tree.path(PICTURES).symlink_to("nowhere"), PICTURES)
    yield Case("the folder is a named pipe", lambda tree: os.mkfifo(tree.path(PICTURES)), PICTURES)
    yield Case("captions alone", lambda tree: [tree.remove(f"{PICTURES}/{n:02}.png") for n in range(1, 13)], PICTURES)
    if os.geteuid():
        yield Case("the folder cannot be read", lambda tree: (tree.folder / PICTURES).chmod(0), PICTURES)
        yield Case("a picture cannot be read", lambda tree: (tree.folder / ONE).chmod(0), "01.png")
    for value in (*STRANGE, LONG, "..", ".", "/", "data/styles", "data/style/watercolor", "data/styles/Watercolor"):
        spoil = lambda tree, value=value: tree.knob(knob, value)  # noqa: E731
        yield Case(f"pictures: {value[:30]}", spoil, r"pictures|folder|a/a/a")
    yield Case("a folder inside the folder", nested, "more", "said")
    yield Case("pictures in folders of the folder alone", only_nested, PICTURES)


def nested(tree):
    tree.copy(ONE, f"{PICTURES}/more/13.png")


def only_nested(tree):
    tree.rename(PICTURES, "data/kept")
    tree.rename("data/kept", f"{PICTURES}/2024")


def files() -> Iterator[Case]:
    yield Case("a named pipe", lambda tree: os.mkfifo(tree.path(f"{PICTURES}/13.png")), r"13\.png")
    yield Case("a named pipe for a picture", lambda tree: os.mkfifo(tree.path(ONE)), r"01\.png")
    yield Case("a socket", lambda tree: listening(tree), r"13\.png")
    yield Case("a folder called 13.png", lambda tree: tree.path(f"{PICTURES}/13.png").mkdir(), r"13\.png")
    yield Case("a link to itself", lambda tree: tree.path(ONE).symlink_to("01.png"), r"01\.png")
    yield Case("a link to nothing", lambda tree: tree.path(ONE).symlink_to("gone.png"), r"01\.png")
    yield Case("a device without an end", lambda tree: tree.path(ONE).symlink_to("/dev/zero"), r"01\.png")
    yield Case("a link to a picture", lambda tree: tree.path(ONE).symlink_to("02.png"), "", "sound")
    for name, content in crafted.OTHER_FORMATS.items():
        yield Case(f"13.{name} beside them", added(f"13.{name}", content), rf"13\.{name}", "said")
    for name in ("PNG", "Jpg"):
        content = picture(kind="PNG" if name == "PNG" else "JPEG")
        yield Case(f"13.{name}", added(f"13.{name}", content), rf"13 pictures|13\.{name}", "said")
    for kind, ends in (("GIF", "gif"), ("TIFF", "tiff"), ("TIFF", "tif"), ("JPEG", "jpe"), ("JPEG", "jfif")):
        content = picture("RGB" if kind == "JPEG" else "P" if kind == "GIF" else "RGB", kind)
        yield Case(f"13.{ends}, a good {kind}", added(f"13.{ends}", content), rf"13 pictures|13\.{ends}", "said")
    yield Case("two pictures with one caption", added("01.jpg", picture(kind="JPEG"), False), r"01\.(jpg|png)", "said")
    for name, shown in {
        "a\nb.png": "a line break",
        "\x1b[31m.png": "an escape",
        "-rf.png": "a dash first",
        "x" * 240 + ".png": "240 letters",
        "a b.png": "a space",
        "é.png": "an accent",
        "a'b\".png": "quotes",
        "a;b$(c).png": "shell signs",
        " .png": "blank",
        "\udcff.png": "bytes that are no UTF-8",
        "13.png.png": "png twice",
        "$HOME.png": "a dollar",
        "\u202egnp.png": "a reversal",
    }.items():
        yield Case(f"a name with {shown}", added(name, picture()), "", "sound")
    for name in ("._01.png", ".DS_Store", "Thumbs.db", ".gitignore", "desktop.ini", "@eaDir/01.png"):
        yield Case(f"{name} of another system", added(name, b"\0\5\x16\7\0\2\0\0Mac OS X", False), "", "sound")


def listening(tree):
    """A socket; its path is relative, because a socket's path may be 107 characters long."""
    here = os.getcwd()
    os.chdir(tree.folder / PICTURES)
    try:
        socket.socket(socket.AF_UNIX).bind("13.png")
    finally:
        os.chdir(here)


def contents() -> Iterator[Case]:
    for kind in FORMATS:
        ends = kind.lower().replace("jpeg", "jpg")
        whole = picture("P" if kind == "GIF" else "RGB", kind, (256, 256))
        listed = rf"13\.{ends}"
        yield Case(f"a {kind} cut in half", added(f"13.{ends}", whole[: len(whole) // 2]), listed, "said")
        yield Case(f"a {kind} without its last bytes", added(f"13.{ends}", whole[:-40]), listed, "sound")
        yield Case(f"a {kind}'s first bytes alone", added(f"13.{ends}", whole[:16]), listed, "said")
        yield Case(f"a {kind} of zero bytes", added(f"13.{ends}", b""), listed, "said")
        noise = bytes(b ^ 0xA5 if 60 < i < 600 else b for i, b in enumerate(whole))
        yield Case(f"a {kind} with spoilt bytes", added(f"13.{ends}", noise), listed, "sound")
    for name, content in crafted.DISGUISED.items():
        yield Case(name, lambda tree, content=content: tree.write(ONE, content), r"01\.png")
    yield Case("text in a .jpg", added("13.jpg", b"a green house\n"), r"13\.jpg")
    for name, content in crafted.BOMBS.items():
        yield Case(name, lambda tree, content=content: tree.write(ONE, content()), r"01\.png")


def makes() -> Iterator[Case]:
    gradient = Image.linear_gradient("L").resize((64, 64))
    for mode, kind, ends in (
        ("1", "PNG", "png"),
        ("L", "PNG", "png"),
        ("LA", "PNG", "png"),
        ("P", "PNG", "png"),
        ("RGBA", "PNG", "png"),
        ("I;16", "PNG", "png"),
        ("CMYK", "JPEG", "jpg"),
        ("L", "JPEG", "jpg"),
        ("YCbCr", "JPEG", "jpg"),
        ("F", "TIFF", "tif"),
        ("I", "TIFF", "tif"),
        ("LAB", "TIFF", "tif"),
        ("CMYK", "TIFF", "tif"),
        ("RGBA", "WEBP", "webp"),
    ):
        source = gradient if mode != "LAB" else rgb_to_lab(gradient)
        out = BytesIO()
        (source if mode == "LAB" else source.convert("I").convert(mode) if ";" in mode else source.convert(mode)).save(
            out, kind
        )
        yield Case(f"{mode} in {kind}", added(f"13.{ends}", out.getvalue()), rf"13 pictures|13\.{ends}", "said")
    frames = [gradient.convert("P"), gradient.rotate(90).convert("P")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        out = BytesIO()
        frames[0].save(out, kind, save_all=True, append_images=frames[1:])
        ends = kind.lower()
        yield Case(f"an animated {kind}", added(f"13.{ends}", out.getvalue()), rf"13 pictures|13\.{ends}", "said")
    for turn in range(1, 10):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield Case(f"EXIF orientation {turn}", added("13.jpg", picture(kind="JPEG", exif=exif)), "13 pictures", "note")
    yield Case("EXIF that is none", added("13.jpg", picture(kind="JPEG", exif=b"Exif\0\0nothing")), r"13", "said")
    yield Case("a colour profile that is none", added("13.png", picture(icc_profile=b"nothing at all")), "13", "said")
    yield Case("a profile of one byte", added("13.jpg", picture(kind="JPEG", icc_profile=b"x")), "13", "said")
    yield Case("one pixel", added("13.png", picture(size=(1, 1))), r"13\.png", "said")
    yield Case("four pixels a side", added("13.png", picture(size=(4, 4))), r"13\.png", "said")
    yield Case("one pixel high", added("13.png", picture(size=(4000, 1))), r"13\.png", "said")
    yield Case("24 megapixels", added("13.jpg", lambda: picture(kind="JPEG", size=(6000, 4000))), "13 pictures", "note")
    yield Case("nothing but transparent", added("13.png", crafted.transparent()), r"13", "said")


def rgb_to_lab(image):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(image.convert("RGB"), *profiles, outputMode="LAB")


def reference() -> Iterator[Case]:
    knob = f"styles.{STYLE}.reference"
    for value in (
        *STRANGE,
        LONG,
        "data/nowhere",
        "data/prompts.txt",
        "data",
        "data/captions",
        "miniature",
        "miniature/nothing",
        "src/aclora",
        "stages",
        "models/miniature/clip",
        "miniature/drawing/world.py",
    ):
        spoil = lambda tree, value=value: tree.knob(knob, value)  # noqa: E731
        yield Case(f"reference: {value[:30]}", spoil, r"reference|folder|" + value[:20].strip("'\""))
    for name, content in (("no PNG", b"no"), ("an empty file", b""), ("a cut PNG", picture(size=(256, 256))[:300])):
        yield Case(f"the reference holds {name}", with_reference(content), r"01\.png")
    yield Case("the reference holds one picture", with_reference(None), "data/held")
    yield Case("the reference holds a pipe", pipe_in_reference, r"03\.png")
    yield Case(
        "a package that draws another style",
        lambda tree: tree.edit("params.yaml", f"\n  {STYLE}:\n", "\n  mine:\n"),
        "mine",
    )
    yield Case("a package that fails", lambda tree: package(tree, "raise RuntimeError('no paint')"), "reference|held")
    yield Case("a package that ends", lambda tree: package(tree, "import sys\nsys.exit(0)"), "reference|held")
    yield Case("a package without a draughtsman", lambda tree: package(tree, f"STYLES = ['{STYLE}']"), "reference|held")


def with_reference(content: bytes | None):
    def spoil(tree):
        tree.knob(f"styles.{STYLE}.reference", "data/held")
        for name in ("01", "02") if content is not None else ("01",):
            tree.copy(f"data/styles/pencil/{name}.png", f"data/held/{name}.png")
        if content is not None:
            tree.write("data/held/01.png", content)

    return spoil


def pipe_in_reference(tree):
    with_reference(picture())(tree)
    os.mkfifo(tree.path("data/held/03.png"))


def package(tree, code: str):
    tree.knob(f"styles.{STYLE}.reference", "held")
    tree.write("held/__init__.py", code + "\n")

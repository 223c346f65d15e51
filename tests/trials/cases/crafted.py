"""Files by hand, byte for byte: what is no picture, what claims to be one, what is larger than a machine."""

import struct
import zlib
from io import BytesIO

from PIL import Image


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int = 8, colour: int = 0, rows: int | None = None) -> bytes:
    """A black PNG of any size that its header can say; `rows` of them are really there."""
    samples = {0: 1, 2: 3, 6: 4}[colour]
    packer = zlib.compressobj(1)
    line = b"\0" * (1 + (width * bits * samples + 7) // 8)
    data = b"".join(packer.compress(line) for _ in range(height if rows is None else rows)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose compressed comment is a gigabyte."""
    packer = zlib.compressobj(9)
    content = b"".join(packer.compress(b"a" * 2**20) for _ in range(1024)) + packer.flush()
    small = png(64, 64, 8, 2)
    return small[:33] + chunk(b"zTXt", b"Comment\0\0" + content) + small[33:]


def transparent() -> bytes:
    out = BytesIO()
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(out, "PNG")
    return out.getvalue()


def encoded(kind: str) -> bytes:
    out = BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(out, kind)
    return out.getvalue()


BOMBS = {
    "30000 × 30000 pixels": lambda: png(30000, 30000, 1),
    "20000 × 20000 pixels, header alone": lambda: png(20000, 20000, 8, 2, rows=0),
    "two thousand million pixels a side": lambda: header_only(),
    "no pixel": lambda: png(0, 0),
    "half its rows": lambda: png(512, 512, 8, 2, rows=256),
    "a gigabyte of comment": text_bomb,
}


def header_only() -> bytes:
    head = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n0 0 64 64 rectfill\nshowpage\n%%EOF\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><rect width="64" height="64"/></svg>'
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64

# Files that are no pictures, under the name of one.
DISGUISED = {
    "text in a .png": b"a green house\n",
    "a web page in a .png": b"<!doctype html><html><body>404 Not Found</body></html>",
    "an EPS in a .png": POSTSCRIPT,
    "a PDF in a .png": PDF,
    "an SVG in a .png": SVG,
    "a HEIC in a .png": HEIC,
    "a ZIP in a .png": b"PK\x03\x04" + b"\0" * 60,
    "a pointer of Git LFS in a .png": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "an icon in a .png": encoded("ICO"),
    "a PPM in a .png": encoded("PPM"),
    "a TGA in a .png": encoded("TGA"),
    "an XPM in a .png": b'/* XPM */\nstatic char *x[] = {\n"1 1 1 1",\n"a c #000000",\n"a"\n};\n',
    "a FLI film in a .png": struct.pack("<IHHHHHHI", 128, 0xAF12, 1, 64, 64, 8, 3, 5) + b"\0" * 108,
}
# What people put beside pictures, or have for pictures.
OTHER_FORMATS = {
    "heic": HEIC,
    "heif": HEIC,
    "avif": b"\0\0\0\x1cftypavif\0\0\0\0mif1avif" + b"\0" * 64,
    "jxl": b"\xff\x0a" + b"\0" * 64,
    "psd": b"8BPS\0\1" + b"\0" * 64,
    "svg": SVG,
    "pdf": PDF,
    "eps": POSTSCRIPT,
    "cr2": b"II*\0\x10\0\0\0CR\2\0" + b"\0" * 64,
    "dng": b"II*\0\x08\0\0\0" + b"\0" * 64,
    "mp4": b"\0\0\0\x18ftypmp42" + b"\0" * 64,
    "zip": b"PK\x03\x04" + b"\0" * 60,
    "npy": b"\x93NUMPY\1\0v\0" + b" " * 60,
    "xmp": b"<x:xmpmeta/>",
}

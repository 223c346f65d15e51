"""PNG files are whole: Pillow's decoder stops at the last pixel, and neither reads checksums nor misses rows."""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type of the header
BLOCK = 1 << 20


def check_png(file: Path) -> None:
    """Raises `ValueError` where a checksum of the header or the pixels is wrong, or rows are missing."""
    with file.open("rb") as opened:
        opened.seek(8)
        inflate, found, wanted = zlib.decompressobj(), 0, 0
        for kind, block in _blocks(opened):
            if kind == b"IHDR":
                width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", block)
                row = 1 + math.ceil(width * bits * CHANNELS.get(colour, 0) / 8)
                wanted = 0 if interlaced else row * height  # in bytes; interlaced rows are not counted
            elif kind == b"IDAT" and not inflate.eof:
                while block and found <= wanted:
                    found += len(inflate.decompress(block, BLOCK))
                    block = inflate.unconsumed_tail
    if found < wanted:
        raise ValueError("rows are missing")


def _blocks(opened: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The kind and content of each chunk up to the end, long ones in several blocks."""
    while len(head := opened.read(8)) == 8:
        left, kind = struct.unpack(">I4s", head)
        found = zlib.crc32(kind)
        while left:
            block = opened.read(min(left, BLOCK))
            if not block:
                raise ValueError("it is cut short")
            found, left = zlib.crc32(block, found), left - len(block)
            yield kind, block
        if opened.read(4) != struct.pack(">I", found) and kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            raise ValueError(f"the checksum of {kind.decode()} is wrong")
        if kind == b"IEND":
            return
    raise ValueError("it is cut short")

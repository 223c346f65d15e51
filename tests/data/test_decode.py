"""Every picture that people have comes in upright, in 8 bits, in sRGB, on white; everything else is one line."""

import os
import random
import shutil
import signal
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from aclora.core.errors import InputError
from aclora.data.decode import ENDINGS, FORMATS, decode, pixels
from tests.conftest import ROOT
from tests.data.pictures import gradient, saved, values
from tests.data.test_colours import wide_profile


@pytest.fixture
def never_waits():
    """Ends a test that hangs."""
    signal.alarm(20)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("file", sorted((ROOT / "data/styles").glob("*/01.png")), ids=lambda f: f.parent.name)
def test_the_projects_own_pictures_keep_every_pixel(file):
    read = decode(file)
    with Image.open(file) as plain:
        assert read.image.tobytes() == plain.convert("RGB").tobytes()
    assert read.notes == ()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif", "gif"])
def test_ordinary_pictures_keep_every_pixel(tmp_path, mode, ending):
    picture = gradient().convert(mode)
    if ending == "jpg" and mode in ("RGBA", "P"):
        picture = picture.convert("RGB")
    file = saved(tmp_path / f"a.{ending}", picture)
    read = decode(file)
    with Image.open(file) as plain:
        assert read.image.tobytes() == plain.convert("RGB").tobytes()
    assert (read.image.mode, read.size, read.notes) == ("RGB", (40, 30), ())


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_what_is_in_a_file_decides_not_its_name(tmp_path, picture_format):
    file = saved(tmp_path / "a.jpg", gradient(), format=picture_format)
    assert decode(file).size == (40, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("draft", [None, 16])
def test_a_telephones_picture_is_upright(tmp_path, ending, orientation, draft):
    upright = gradient(400, 300)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {  # how the camera held the picture
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    stored = upright
    for turn in turned:
        stored = stored.transpose(turn)
    read = decode(saved(tmp_path / f"a.{ending}", stored, exif=exif), draft)
    assert read.size == (400, 300)
    assert np.abs(values(read.image) - values(upright.resize(read.image.size))).max() < 16
    assert read.notes == (("turned as EXIF says",) if orientation > 1 else ())


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + b"\xff" * 30])
def test_damaged_exif_turns_nothing(tmp_path, exif):
    read = decode(saved(tmp_path / "a.jpg", gradient(), exif=exif))
    assert (read.size, read.notes) == ((40, 30), ())


@pytest.mark.parametrize("ending", ["gif", "webp", "tif"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_first_frame_counts(tmp_path, ending, mode):
    frames = [Image.new("RGB", (16, 16), c).convert(mode) for c in ("red", "green", "blue")]
    how = {"lossless": True} if ending == "webp" else {}
    file = saved(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:], **how)
    read = decode(file)
    assert read.image.getcolors() == [(256, (255, 0, 0))]
    assert read.image.crop((0, 0, 8, 8)).resize((4, 4)).getpixel((1, 1)) == (255, 0, 0)  # usable with the file closed
    assert read.notes == ("the first frame of several",)


@pytest.mark.skipif("AVIF" not in FORMATS, reason="this Pillow reads no AVIF")
def test_avif_is_read(tmp_path):
    assert ".avif" in ENDINGS
    read = decode(saved(tmp_path / "a.avif", gradient(), quality=100))
    assert np.abs(values(read.image) - values(gradient())).max() < 12


def test_the_formats_are_what_this_pillow_reads():
    assert set(FORMATS) >= {"PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"}
    assert ("AVIF" in FORMATS) == bool(features.check("avif"))


def test_postscript_never_reaches_ghostscript(tmp_path, monkeypatch):
    import subprocess

    file = tmp_path / "a.png"
    gradient().save(file, format="EPS")
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    with pytest.raises(InputError, match=r"a.png is not a readable picture \(it is none of PNG, JPEG"):
        decode(file)


@pytest.mark.parametrize("other", ["PCX", "PPM", "ICO", "TGA", "SGI", "PDF", "JPEG2000", "DDS"])
def test_other_formats_are_refused(tmp_path, other):
    gradient(32, 32).save(tmp_path / "a.png", format=other)
    with pytest.raises(InputError, match="is none of PNG, JPEG"):
        decode(tmp_path / "a.png")


def test_heic_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    with pytest.raises(InputError, match=r"it is of the kind 'heic', as HEIC is; convert it to JPEG or PNG"):
        decode(tmp_path / "a.jpg")


def png_of_bits(file, side, content):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b""))
    return file


def huge_png(file, side):
    return png_of_bits(file, side, bytes(1000))


def test_a_png_without_some_of_its_rows_is_refused(tmp_path):
    assert decode(png_of_bits(tmp_path / "a.png", 12, bytes(3 * 12))).size == (12, 12)
    with pytest.raises(InputError, match=r"a.png is not a readable picture \(rows are missing\)"):
        decode(png_of_bits(tmp_path / "a.png", 12, bytes(3 * 11)))


def test_a_changed_bit_in_a_png_is_found_wherever_it_is(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    file = saved(tmp_path / "a.png", noise)
    whole = file.read_bytes()
    for place in range(0, len(whole), 97):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"a\.png is not a readable picture"):
            decode(file)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_whole_pngs_of_every_kind_pass(tmp_path, mode):
    for side in (1, 3, 64):
        Image.new(mode, (side, 2 * side)).save(tmp_path / "a.png")
        assert decode(tmp_path / "a.png").size == (side, 2 * side)


@pytest.mark.parametrize("read", [decode, pixels])
def test_too_many_pixels_are_one_line(tmp_path, read):
    before = Image.MAX_IMAGE_PIXELS
    said = r"a.png has 30000 × 30000 pixels: at most 200 million; make it smaller"
    with pytest.raises(InputError, match=said):
        read(huge_png(tmp_path / "a.png", 30000))
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_largest_telephones_pictures_are_allowed(tmp_path):
    assert pixels(huge_png(tmp_path / "a.png", 14000)) == 196_000_000  # Pillow itself would refuse


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "bmp", "gif", "avif"])
@pytest.mark.parametrize("draft", [None, 16])
def test_half_a_file_is_refused(tmp_path, ending, draft):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    file = saved(tmp_path / f"a.{ending}", noise)
    whole = file.read_bytes()
    for share in (0.02, 0.3, 0.7, 0.97):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=rf"a.{ending} is not a readable picture") as error:
            decode(file, draft)
        assert "\n" not in str(error.value)


def test_what_is_no_file_is_named_and_nothing_waits(tmp_path, never_waits):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "link.png").symlink_to("nowhere.png")
    for name, said in (
        ("pipe.png", "is a named pipe, not a file"),
        ("folder.png", "is a folder, not a file"),
        ("empty.png", "is empty: replace or remove it"),
        ("link.png", "is a link to nowhere.png, which does not exist"),
    ):
        with pytest.raises(InputError, match=f"{name} {said}"):
            decode(tmp_path / name)
    with pytest.raises(InputError, match="/dev/zero is a device, not a file"):
        decode(Path("/dev/zero"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_nobody_may_read(tmp_path):
    saved(tmp_path / "a.png", gradient()).chmod(0)
    with pytest.raises(InputError, match=r"a.png .*Permission denied"):
        decode(tmp_path / "a.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "bmp", "gif", "avif"])
def test_damaged_files_decode_or_are_refused(tmp_path, ending):
    draw = random.Random(ending)
    exif = Image.Exif()
    exif[0x0112] = 6
    how = {} if ending in ("bmp", "gif") else {"exif": exif, "icc_profile": wide_profile()}
    whole = saved(tmp_path / f"a.{ending}", gradient(), **how).read_bytes()
    refused = []
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 3, 20))):
            damaged[draw.randrange(min(len(damaged), draw.choice((64, len(damaged)))))] = draw.randrange(256)
        (tmp_path / "b.png").write_bytes(damaged)
        try:
            assert decode(tmp_path / "b.png").image.mode == "RGB"
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert not [error for error in refused if "\n" in error or "b.png" not in error]


def test_a_picture_that_is_read_leaves_nothing_open(tmp_path):
    file = saved(tmp_path / "a.tif", gradient())
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    kept = [decode(file).image for _ in range(5)]
    shutil.rmtree(tmp_path)
    assert not before or len(os.listdir("/proc/self/fd")) == before
    assert all(picture.getpixel((0, 0)) == (0, 0, 90) for picture in kept)

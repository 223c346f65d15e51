"""Depth, transparency, CMYK and colour profiles: every picture becomes 8 bits of sRGB on white."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from aclora.core.errors import InputError
from aclora.data.decode import decode
from tests.data.pictures import gradient, saved, values

GREY16 = np.linspace(0, 65535, 40 * 30).reshape(30, 40).round()


@pytest.mark.parametrize(
    ("ending", "array"),
    [
        ("png", GREY16.astype(np.uint16)),
        ("tif", GREY16.astype(np.uint16)),
        ("tif", GREY16.astype(">u2")),
        ("tif", GREY16.astype(np.int32)),
        ("tif", (GREY16 * 32768).astype(np.int32)),
        ("tif", (GREY16 / 65535).astype(np.float32)),
        ("tif", (GREY16 / 257).astype(np.float32)),
        ("tif", (GREY16 / 2 - 9000).astype(np.float32)),
    ],
    ids=["png 16", "tif 16", "tif 16 big-endian", "32, of 16", "32", "float 0…1", "float 0…255", "float, negative"],
)
def test_16_bits_and_more_are_scaled_not_clipped(tmp_path, ending, array):
    read = decode(saved(tmp_path / f"a.{ending}", Image.fromarray(array)))
    assert np.abs(values(read.image)[..., 0] - (GREY16 / 257)).max() <= 1
    assert read.notes == ("scaled to 8 bits",)


def test_a_transparent_grey_of_16_bits_becomes_white(tmp_path):
    array = GREY16.astype(np.uint16)
    file = saved(tmp_path / "a.png", Image.fromarray(array), transparency=int(array[0, 0]))
    read = values(decode(file).image)
    assert read[0, 0].tolist() == [255] * 3
    assert read[0, 2].max() < 3


def test_floats_that_are_no_numbers_are_refused(tmp_path):
    file = saved(tmp_path / "a.tif", Image.fromarray(np.full((9, 9), np.nan, np.float32)))
    with pytest.raises(InputError, match=r"a.tif is not a readable picture \(it holds values that are not finite"):
        decode(file)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_white(tmp_path, mode):
    picture = Image.new("LA" if mode == "LA" else "RGBA", (20, 20), 0)
    picture.paste(Image.new(picture.mode, (10, 20), "black"), (0, 0))
    read = decode(saved(tmp_path / "a.png", picture.quantize(4) if mode == "P" else picture))
    assert read.image.getpixel((15, 5)) == (255, 255, 255)
    assert read.image.getpixel((5, 5)) == (0, 0, 0)
    assert read.notes == ("transparent parts became white",)


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_cmyk_becomes_rgb(tmp_path, ending):
    picture = Image.new("CMYK", (20, 20), (0, 255, 255, 0))
    read = decode(saved(tmp_path / f"a.{ending}", picture))
    assert np.abs(values(read.image) - [255, 0, 0]).max() < 12
    assert read.notes == ("CMYK without a colour profile, converted roughly",)


def test_lab_becomes_rgb(tmp_path):
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    read = decode(saved(tmp_path / "a.tif", to_lab.apply(gradient())))
    assert np.abs(values(read.image) - values(gradient())).mean() < 3
    assert read.notes == ("converted from LAB to sRGB",)


def wide_profile():
    """A profile of RGB whose red is further out than sRGB's, with a gamma of its own: sRGB's with other numbers."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    for i in range(count):
        name, at, _ = struct.unpack(">4sII", data[132 + 12 * i : 144 + 12 * i])
        if name == b"rXYZ":
            red = at
        if name == b"gXYZ":
            green = at
    # what red loses green gets: white stays white, and every other colour moves
    for k in range(3):
        r, g = (struct.unpack(">i", data[at + 8 + 4 * k : at + 12 + 4 * k])[0] for at in (red, green))
        moved = round(0.2 * g)
        data[red + 8 + 4 * k : red + 12 + 4 * k] = struct.pack(">i", r + moved)
        data[green + 8 + 4 * k : green + 12 + 4 * k] = struct.pack(">i", g - moved)
    return bytes(data)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_a_colour_profile_leads_to_srgb(tmp_path, ending):
    how = {"quality": 100} if ending == "jpg" else {"lossless": True} if ending == "webp" else {}
    file = saved(tmp_path / f"a.{ending}", Image.new("RGB", (16, 16), (200, 40, 40)), icc_profile=wide_profile(), **how)
    read = decode(file)
    (note,) = read.notes
    assert note.startswith("converted from ")
    assert note.endswith(" to sRGB")
    source = ImageCms.ImageCmsProfile(BytesIO(wide_profile()))
    expected = ImageCms.profileToProfile(
        Image.new("RGB", (1, 1), (200, 40, 40)), source, ImageCms.createProfile("sRGB"), 1, flags=0x2000
    )
    assert np.abs(values(read.image)[8, 8] - values(expected)[0, 0]).max() <= 3
    assert np.abs(values(read.image)[8, 8] - [200, 40, 40]).max() > 10
    assert not read.image.info


def test_srgb_itself_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    read = decode(saved(tmp_path / "a.png", gradient(), icc_profile=profile))
    assert read.image.tobytes() == gradient().tobytes()
    assert read.notes == ()


def grey_profile():
    """A grey profile of gamma 1, as a file has it."""
    white = struct.pack(">4xiii", 63190, 65536, 54061)
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"grey\0" + bytes(78),
        b"wtpt": b"XYZ " + white,
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">I", 0),
    }
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content
    head = bytearray(128)
    head[8:12], head[12:24], head[36:40] = struct.pack(">I", 0x02400000), b"mntrGRAYXYZ ", b"acsp"
    head[68:80] = struct.pack(">iii", 63190, 65536, 54061)
    whole = bytes(head) + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_profile_is_followed(tmp_path, mode):
    picture = Image.fromarray(np.full((9, 9), 64 * 257, np.uint16)) if mode == "I;16" else Image.new("L", (9, 9), 64)
    picture = picture if mode == "I;16" else picture.convert(mode)
    read = decode(saved(tmp_path / "a.png", picture, icc_profile=grey_profile()))
    assert read.notes[-1] == "converted from grey to sRGB"
    assert abs(read.image.getpixel((4, 4))[0] - 137) <= 2  # linear 64/255 in sRGB


@pytest.mark.parametrize("profile", [b"no profile", wide_profile()[:300], grey_profile()])
def test_a_profile_that_does_not_fit_is_ignored(tmp_path, profile):
    read = decode(saved(tmp_path / "a.png", gradient(), icc_profile=profile))
    assert read.image.tobytes() == gradient().tobytes()
    assert read.notes == ("a colour profile that cannot be used, so ignored",)

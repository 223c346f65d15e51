"""A folder's pictures: read once, one in memory at a time, and what is to be said of them said once."""

import os
import weakref

import numpy as np
import pytest
from PIL import Image

from aclora.core.errors import InputError
from aclora.core.files import write_jsonl
from aclora.core.images import square
from aclora.data import pictures
from aclora.data.pictures import (
    look_at_pictures,
    picture_files,
    read_generated,
    read_picture,
    read_squares,
    shared_pictures,
)


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture
def large(tmp_path):
    """A folder with a JPEG of 6 megapixels and a small PNG."""
    folder = tmp_path / "large"
    folder.mkdir()
    noise(300, 200).resize((3000, 2000)).save(folder / "a.jpg", quality=80)
    noise(50, 40).save(folder / "b.png")
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded, in order."""
    seen, own = [], pictures.decode
    monkeypatch.setattr(pictures, "decode", lambda file, *rest: seen.append(file.name) or own(file, *rest))
    return seen


def test_squares_are_those_of_the_whole_pictures(large, tmp_path):
    files = picture_files(large)
    expected = [square(read_picture(file), 64).tobytes() for file in files]
    for _ in range(2):
        assert [p.tobytes() for p in read_squares(files, 64, tmp_path / "cache")] == expected
    assert [p.tobytes() for p in read_squares(files, 64)] == expected


def test_a_large_picture_is_decoded_once_for_each_size(large, tmp_path, decoded):
    cache = tmp_path / "cache"
    for _ in range(3):
        read_squares(picture_files(large), 64, cache)
        look_at_pictures(large, cache)
    assert decoded.count("a.jpg") == 2  # its square, and whether all of it can be read
    read_squares(picture_files(large), 32, cache)
    assert decoded.count("a.jpg") == 3
    (large / "a.jpg").rename(large / "c.jpg")
    read_squares(picture_files(large), 64, cache)
    assert "c.jpg" not in decoded  # what is in it counts
    noise(3000, 2000, 1).save(large / "c.jpg")
    read_squares(picture_files(large), 64, cache)
    assert decoded.count("c.jpg") == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "folder"])
def test_a_damaged_cache_is_made_again(large, tmp_path, damage):
    cache = tmp_path / "cache"
    expected = read_squares(picture_files(large), 64, cache)[0].tobytes()
    notes = look_at_pictures(large, cache)
    for kept in list(cache.iterdir()):
        content = kept.read_bytes()
        kept.unlink()
        if damage == "folder":
            kept.mkdir()
        else:
            flipped = content[:900] + bytes([255 - content[900]]) + content[901:] if len(content) > 900 else b"[1,"
            kept.write_bytes({"cut": content[: len(content) // 2], "flipped": flipped, "empty": b""}[damage])
    assert read_squares(picture_files(large), 64, cache)[0].tobytes() == expected
    assert look_at_pictures(large, cache) == notes


def test_a_cache_that_cannot_be_written_costs_time_alone(large, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert len(read_squares(picture_files(large), 64, tmp_path / "cache")) == 2


@pytest.mark.parametrize("read", [look_at_pictures, lambda folder: read_squares(picture_files(folder), 32)])
def test_one_picture_is_in_memory_at_a_time(tmp_path, monkeypatch, read):
    for i in range(6):
        noise(64, 48, i).save(tmp_path / f"{i}.png")
    seen, most, own = [], [], pictures.decode

    def counted(file, *rest):
        most.append(sum(image() is not None for image in seen))
        picture = own(file, *rest)
        seen.append(weakref.ref(picture.image))
        return picture

    monkeypatch.setattr(pictures, "decode", counted)
    read(tmp_path)
    assert len(most) == 6
    assert max(most) <= 1


def test_a_truncated_large_picture_is_found_without_decoding_it_in_full(large):
    file = large / "a.jpg"
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"a.jpg is not a readable picture \(.*truncated"):
        look_at_pictures(large)


def test_each_kind_of_note_is_said_once_with_a_count(tmp_path):
    for i in range(3):
        exif = Image.Exif()
        exif[0x0112] = 6
        noise(64, 48, i).save(tmp_path / f"{i}.jpg", exif=exif)
    noise(40, 40).save(tmp_path / "3.png")
    noise(100, 40).save(tmp_path / "4.png")
    noise(100, 40).save(tmp_path / "5.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "6.png")
    (tmp_path / "notes.md").write_text("mine")
    found = look_at_pictures(tmp_path, size=48)
    assert [file.name for file in found.digests] == [
        *(f"{i}.jpg" for i in range(3)),
        *(f"{i}.png" for i in range(3, 7)),
    ]
    assert found.notes == [
        f"{tmp_path}: turned as EXIF says: 3 pictures (the first: 0.jpg)",
        f"{tmp_path}: enlarged to the training's 48 pixels a side: 3 pictures (the first: 3.png)",
        f"{tmp_path}: at least twice as long as wide, of which the central square is used: "
        "2 pictures (the first: 4.png)",
        f"{tmp_path}: of one colour all over: 6.png",
        f"{tmp_path}: the same picture: 4.png, 5.png",
        f"{tmp_path}: not used: notes.md (no kind of file that is read here)",
    ]


def test_nothing_is_said_of_ordinary_pictures(tmp_path):
    noise(64, 64).save(tmp_path / "a.png")
    assert look_at_pictures(tmp_path, size=64).notes == []


def test_a_tiny_picture_is_refused(tmp_path):
    noise(64, 7).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a.png has 64 × 7 pixels: at least 8 a side are needed"):
        look_at_pictures(tmp_path)


def test_training_pictures_in_the_reference_are_named(tmp_path):
    for folder, seeds in (("style", (0, 1)), ("held_out", (1, 2))):
        (tmp_path / folder).mkdir()
        for i in seeds:
            noise(16, 16, i).save(tmp_path / folder / f"{folder}{i}.png")
    style, held_out = (look_at_pictures(tmp_path / folder) for folder in ("style", "held_out"))
    where = tmp_path / "held_out"
    said = [f"{where}: training pictures, which let figures reward copies: held_out1.png"]
    assert shared_pictures(style, held_out) == said
    assert shared_pictures(style, look_at_pictures(where.parent / "held_out")) == said


@pytest.fixture
def generated(tmp_path):
    folder = tmp_path / "generated"
    (folder / "adapter").mkdir(parents=True)
    for i in range(3):
        noise(16, 16, i).save(folder / "adapter" / f"{i:04}.png")
    write_jsonl(folder / "prompts.jsonl", [{"file": f"{i:04}.png", "prompt": "a", "seed": i} for i in range(3)])
    return folder


def test_generated_pictures_come_with_their_rows(generated):
    rows, found = read_generated(generated, "adapter")
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert [p.tobytes() for p in found] == [noise(16, 16, i).tobytes() for i in range(3)]


ROW = '{"file": "0000.png", "prompt": "a", "seed": 0}\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "prompts.jsonl is damaged at line 1"),
        (ROW + '{"file": "0001.p', "prompts.jsonl is damaged at line 2"),
        (ROW + '{"file": "0001.png", "prompt": "a"}\n', "prompts.jsonl is damaged at line 2"),
        (ROW + '{"file": "0001.png", "prompt": "a", "seed": "1"}\n', "prompts.jsonl is damaged at line 2"),
        (ROW + "[1]\n", "prompts.jsonl is damaged at line 2"),
        (ROW + "\n", "prompts.jsonl is damaged at line 2"),
        (ROW, r"prompts.jsonl does not list .*0001.png"),
        (ROW + ROW.replace("0000", "0009"), r"0009.png, which .*prompts.jsonl lists, is missing"),
    ],
)
def test_damaged_prompts_are_one_line(generated, content, said):
    (generated / "prompts.jsonl").write_text(content)
    with pytest.raises(InputError, match=said + r".*: run the generate stage again \(`dvc repro --force`\)$"):
        read_generated(generated, "adapter")


def test_pictures_of_two_sizes_do_not_pass(generated):
    noise(8, 8).save(generated / "adapter/0001.png")
    with pytest.raises(InputError, match=r"0001.png is \(8, 8\), .*0000.png \(16, 16\): one size is needed"):
        read_generated(generated, "adapter")


def test_a_pipe_among_the_pictures_stops_nobody(tmp_path):
    noise(16, 16).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b.png is a named pipe, not a file"):
        look_at_pictures(tmp_path)

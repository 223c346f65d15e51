"""Captions: a picture's own first, BLIP's for the rest, and every way they can be wrong."""

import os

import pytest
from PIL import Image

from aclora.core.errors import InputError
from aclora.data.captions import (
    caption_folder,
    contains_trigger,
    look_at_folder,
    prompt_notes,
    read_captions,
    with_trigger,
    write_captions,
)
from tests.conftest import ROOT


def captions(folder, write=None):
    return caption_folder(folder, "zxq style", write, "blip")


def test_own_captions_in_the_pictures_order_with_the_trigger(pictures_folder):
    rows = captions(pictures_folder)
    assert [(r.file, r.text, r.source) for r in rows] == [
        ("0.png", "a red house, zxq style", "0.txt"),
        ("1.png", "a green tree, zxq style", "1.txt"),
        ("2.png", "a blue boat, zxq style", "metadata.jsonl"),
        ("3.png", "a white star, zxq style", "metadata.jsonl"),
    ]


def test_only_missing_ones_are_written(pictures_folder):
    (pictures_folder / "1.txt").unlink()
    rows = captions(pictures_folder, lambda picture: f"something {picture.size[0]} wide\n")
    assert [r.source for r in rows] == ["0.txt", "blip", "metadata.jsonl", "metadata.jsonl"]
    assert rows[1].text == "something 20 wide, zxq style"


def test_they_are_written_and_read_back_with_their_pictures(pictures_folder, tmp_path):
    write_captions(tmp_path / "c.jsonl", captions(pictures_folder))
    assert read_captions(tmp_path / "c.jsonl", pictures_folder) == captions(pictures_folder)
    Image.new("RGB", (20, 16), "black").save(pictures_folder / "2.png")
    with pytest.raises(InputError, match=r"2.png is not the picture that .* describes"):
        read_captions(tmp_path / "c.jsonl", pictures_folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:-30], "c.jsonl is damaged at line 4"),
        (lambda text: text.replace('"caption"', '"captoin"', 1), "c.jsonl is damaged at line 1"),
        (lambda text: "", "c.jsonl is damaged at line 1"),
        (lambda text: "\n".join(text.split("\n")[:2]) + "\n", "c.jsonl does not describe the pictures that are in"),
    ],
    ids=["cut in a line", "a key", "empty", "cut between lines"],
)
def test_damaged_captions_are_one_line(pictures_folder, tmp_path, change, said):
    write_captions(tmp_path / "c.jsonl", captions(pictures_folder))
    text = (tmp_path / "c.jsonl").read_text(encoding="utf-8")
    (tmp_path / "c.jsonl").write_text(change(text), encoding="utf-8")
    with pytest.raises(InputError, match=said + ".*: run the caption stage again"):
        read_captions(tmp_path / "c.jsonl", pictures_folder)


def test_a_picture_that_came_later_is_not_left_out(pictures_folder, tmp_path):
    write_captions(tmp_path / "c.jsonl", captions(pictures_folder))
    Image.new("RGB", (20, 16), "black").save(pictures_folder / "4.png")
    with pytest.raises(InputError, match=r"c.jsonl does not describe the pictures"):
        read_captions(tmp_path / "c.jsonl", pictures_folder)


def spoil(folder, what):
    if what == "missing":
        (folder / "0.txt").unlink()
    if what == "empty":
        (folder / "0.txt").write_text(" \n")
    if what == "latin-1":
        (folder / "0.txt").write_bytes(b"caf\xe9")
    if what == "json":
        (folder / "metadata.jsonl").write_text('{"file_name": "2.png"}')
    if what == "picture":
        (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:40])
    if what == "BOM alone":
        (folder / "0.txt").write_bytes(b"\xef\xbb\xbf")
    if what == "UTF-16":
        (folder / "0.txt").write_text("a red house", encoding="utf-16")
    if what == "UTF-16 without BOM":
        (folder / "0.txt").write_text("a red house", encoding="utf-16-le")
    if what == "punctuation":
        (folder / "0.txt").write_text(" .,.\n")
    if what == "invisible":
        (folder / "0.txt").write_text("\u200b\u2060", encoding="utf-8")
    if what == "NUL":
        (folder / "0.txt").write_bytes(b"a red\0house")
    if what == "NUL in JSON":
        (folder / "metadata.jsonl").write_text('{"file_name": "2.png", "text": "a\\u0000b"}')
    if what == "long":
        (folder / "0.txt").write_text("a " * 20_000)
    if what == "folder":
        (folder / "0.txt").unlink()
        (folder / "0.txt").mkdir()
    if what == "pipe":
        (folder / "0.txt").unlink()
        os.mkfifo(folder / "0.txt")
    if what == "metadata folder":
        (folder / "metadata.jsonl").unlink()
        (folder / "metadata.jsonl").mkdir()
    if what == "cut":
        (folder / "metadata.jsonl").write_bytes((folder / "metadata.jsonl").read_bytes()[:-9])
    if what == "empty metadata":
        (folder / "metadata.jsonl").write_text("\n")
    if what == "array":
        (folder / "metadata.jsonl").write_text("[" * 100_000)
    if what == "of another style":
        lines = [f'{{"file_name": "{i:03}.png", "text": "a cat"}}' for i in range(4)]
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    if what == "a letter for a figure":
        (folder / "0.txt").rename(folder / "O.txt")
    if what == "one too many":
        (folder / "13.txt").write_text("a cat")
    if what == "many too many":
        for i in range(20, 29):
            (folder / f"{i}.txt").write_text("a cat")
    if what == "of HEIC":
        (folder / "4.HEIC").write_bytes(b"heic")
        (folder / "4.txt").write_text("a cat")
    if what == "two pictures":
        Image.new("RGB", (20, 16), "black").save(folder / "0.jpg")
    if what == "two texts":
        (folder / "0.TXT").write_text("a cat")
    if what == "99":
        with (folder / "metadata.jsonl").open("a") as file:
            file.write('\n{"file_name": "99.png", "text": "a cat"}')
    if what == "near":
        text = (folder / "metadata.jsonl").read_text()
        (folder / "metadata.jsonl").write_text(text.replace("3.png", "train/3.jpeg"))
    if what == "twice":
        with (folder / "metadata.jsonl").open("a") as file:
            file.write('\n{"file_name": "2.PNG", "text": "a cat"}')
    if what == "two in a line":
        (folder / "metadata.jsonl").write_text('{"file_name": "2.png", "text": "a cat", "caption": "a dog"}')
    if what == "one name twice":
        (folder / "metadata.jsonl").write_text('{"file_name": "2.png", "text": "a cat", "text": "a dog"}')
    if what == "no pictures":
        for file in folder.glob("*.png"):
            file.unlink()
    if what == "no folder":
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", "0.png has no caption: write one line into 0.txt beside it"),
        ("empty", r"0.png has an empty caption \(0.txt\)"),
        ("latin-1", r"0.txt is not UTF-8 \(byte 3\)"),
        ("json", "metadata.jsonl, line 1: must be"),
        ("picture", "0.png is not a readable picture"),
        ("BOM alone", r"0.png has an empty caption \(0.txt\)"),
        ("UTF-16", "0.txt is UTF-16: save it as UTF-8"),
        ("UTF-16 without BOM", r"0.png has a caption with U\+0000 in it \(0.txt\): write it as plain text, in UTF-8"),
        ("punctuation", r"0.png has a caption without a word, '.,.' \(0.txt\)"),
        ("invisible", r"0.png has a caption without a word"),
        ("NUL", r"0.png has a caption with U\+0000 in it"),
        ("NUL in JSON", r"2.png has a caption with U\+0000 in it \(metadata.jsonl\)"),
        ("long", "0.txt has 40000 bytes: at most 16384 are text for one"),
        ("folder", "0.txt is a folder, not a file: rename or remove it"),
        ("pipe", "0.txt is a named pipe, not a file"),
        ("metadata folder", "metadata.jsonl is a folder, not a file"),
        ("cut", "metadata.jsonl, line 2: must be"),
        ("empty metadata", "metadata.jsonl is empty: write a line for each picture, or remove it"),
        ("array", "metadata.jsonl, line 1: must be"),
        ("of another style", r"metadata.jsonl, line 1: '000.png' is no picture of this folder"),
        ("a letter for a figure", r"O.txt belongs to no picture: did you mean '0.png'\?"),
        ("one too many", "13.txt belongs to no picture: rename or remove it$"),
        ("many too many", "20.txt belongs to no picture: .*; nor do 21.txt, 22.txt, 23.txt, 24.txt, 25.txt and 3 more"),
        (
            "of HEIC",
            r"4.txt belongs to no picture: 4.HEIC is not used \(cannot be read here: convert it to JPEG or PNG",
        ),
        ("two pictures", "0.txt belongs to 0.jpg and 0.png: rename one, with its caption"),
        ("two texts", "0.png has two captions, 0.TXT and 0.txt: remove one"),
        ("99", "line 3: '99.png' is no picture of this folder: correct or remove the line"),
        ("near", r"line 2: 'train/3.jpeg' is no picture of this folder: did you mean '3.png'\?"),
        ("two in a line", "metadata.jsonl, line 1: the picture has two captions: keep one"),
        ("one name twice", "metadata.jsonl, line 1: the picture has two captions: keep one"),
        ("twice", "line 3: '2.PNG' has a caption in line 1 already: keep one"),
        ("no pictures", "holds no pictures: put 10–15 of them there"),
        ("no folder", "is not a folder"),
    ],
)
def test_bad_input_is_named_in_one_line(pictures_folder, what, said):
    spoil(pictures_folder, what)
    with pytest.raises(InputError, match=said) as error:
        captions(pictures_folder)
    assert "\n" not in str(error.value)


def test_a_trigger_stands_at_the_end():
    assert with_trigger("a cat.", " zxq style ") == "a cat, zxq style"


def test_a_trigger_that_is_there_is_not_doubled():
    assert with_trigger("a cat, ZXQ  style.", "zxq style") == "a cat, ZXQ  style"
    assert with_trigger("zxq style, a cat", "zxq style") == "zxq style, a cat"
    assert with_trigger("a pink cat", "ink") == "a pink cat, ink"
    assert with_trigger("a cat zxq styled", "zxq style") == "a cat zxq styled, zxq style"
    assert contains_trigger("a cat in <x.y> style", "<x.y>")
    assert not contains_trigger("a cat in <xzy> style", "<x.y>")


def test_captions_are_accounted_for_whatever_their_letters(pictures_folder):
    (pictures_folder / "0.txt").rename(pictures_folder / "0.TXT")
    Image.new("RGB", (20, 16), "red").save(pictures_folder / "cafe\u0301.png")
    (pictures_folder / "Caf\u00e9.txt").write_bytes(b"\xef\xbb\xbfa cup\r\nof coffee")
    text = (pictures_folder / "metadata.jsonl").read_text().replace("2.png", "2.PNG")
    (pictures_folder / "metadata.jsonl").write_text(f"\n{text}\n\n")
    rows = captions(pictures_folder)
    assert [row.source for row in rows] == ["0.TXT", "1.txt", "metadata.jsonl", "metadata.jsonl", "Caf\u00e9.txt"]
    assert rows[-1].text == "a cup of coffee, zxq style"


def test_two_pictures_of_one_name_may_each_have_a_caption_elsewhere(pictures_folder):
    Image.new("RGB", (20, 16), "black").save(pictures_folder / "3.jpg")
    with (pictures_folder / "metadata.jsonl").open("a") as file:
        file.write('\n{"file_name": "3.jpg", "text": "a black sky"}')
    assert [row.caption for row in captions(pictures_folder)][3:] == ["a black sky", "a white star"]


def test_what_is_odd_is_said_once_with_a_count(pictures_folder):
    (pictures_folder / "0.txt").write_text("a red house, zxq style")
    (pictures_folder / "1.txt").write_text("zxq style, a green tree in vqj style")
    (pictures_folder / "2.txt").write_text("a blue boat")
    (pictures_folder / "metadata.jsonl").unlink()
    (pictures_folder / "3.txt").unlink(missing_ok=True)
    (pictures_folder / "notes.md").write_text("mine")
    found = look_at_folder(pictures_folder, "zxq style", lambda _: "a star", "blip", others=["vqj style"])
    assert [row.text for row in found.captions][:2] == [
        "a red house, zxq style",
        "zxq style, a green tree in vqj style",
    ]
    assert found.notes == [
        f"{pictures_folder}: of one colour all over: 4 pictures (the first: 0.png)",
        f"{pictures_folder}: not used: notes.md (no kind of file that is read here)",
        f"{pictures_folder}: the trigger is in the caption, and not added again: 2 pictures (the first: 0.png)",
        f"{pictures_folder}: the caption contains another style's trigger, 'vqj style': 1.png",
        f"{pictures_folder}: no caption, though others have one; blip writes it: 3.png",
    ]
    assert list(found.pictures.digests) == [pictures_folder / f"{i}.png" for i in range(4)]


def test_a_text_file_wins_over_metadata_and_it_is_said(pictures_folder):
    (pictures_folder / "2.txt").write_text("a blue sea")
    found = look_at_folder(pictures_folder, "zxq style", None, "")
    assert found.captions[2].text == "a blue sea, zxq style"
    assert (
        f"{pictures_folder}: metadata.jsonl has another caption than the .txt file, which is used: 2.png" in found.notes
    )


def test_one_caption_for_all_is_said(pictures_folder):
    for i in range(4):
        (pictures_folder / f"{i}.txt").write_text("a thing")
    (pictures_folder / "metadata.jsonl").unlink()
    found = look_at_folder(pictures_folder, "zxq style", None, "")
    assert found.notes[-1] == f"{pictures_folder}: one caption for all: 4 pictures (the first: 0.png)"


def test_the_projects_own_folders_need_no_word():
    for folder in sorted((ROOT / "data/styles").iterdir()):
        assert look_at_folder(folder, "zxq style", None, "", size=64).notes == []


def test_odd_prompts_are_said():
    assert prompt_notes(["a cat", "a dog"], "zxq style") == []
    assert prompt_notes(["a cat", "a dog", "a cat", "a ZXQ style dog"], "zxq style") == [
        "prompts repeated, which weighs them more in every figure: 1 (the first: a cat)",
        "prompts with the trigger 'zxq style' in them, so that they cannot show drift: 1 (the first: a ZXQ style dog)",
    ]

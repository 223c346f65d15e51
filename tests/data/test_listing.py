"""Every file of a folder is a picture, a caption, skipped for a reason that everybody knows, or named."""

import pytest
from PIL import Image

from aclora.core.errors import InputError
from aclora.data.listing import listing


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        if name.lower().endswith((".png", ".jpg", ".jpeg", ".tiff", ".gif", ".webp", ".bmp", ".avif", ".jfif")):
            Image.new("RGB", (16, 16)).save(folder / name, format="PNG")
        else:
            (folder / name).write_text("something")
    return folder


def names(files):
    return [file.name for file in files]


def test_endings_in_capitals_count(tmp_path):
    found = listing(fill(tmp_path, "b.PNG", "a.JPeG", "c.Tiff", "d.GIF", "e.jfif", "a.TXT", "Metadata.JSONL"))
    assert names(found.pictures) == ["a.JPeG", "b.PNG", "c.Tiff", "d.GIF", "e.jfif"]
    assert names(found.texts) == ["a.TXT"]
    assert found.metadata == tmp_path / "Metadata.JSONL"
    assert found.notes == []


def test_what_systems_leave_is_skipped_without_a_word(tmp_path):
    fill(tmp_path, "a.png", ".DS_Store", "._a.png", "Thumbs.db", "desktop.ini", ".gitignore", "a.png.dvc", "notes/x.md")
    found = listing(tmp_path)
    assert names(found.pictures) == ["a.png"]
    assert found.notes == []


def test_every_other_file_is_named_with_the_reason(tmp_path):
    fill(tmp_path, "a.png", "b.heic", "c.HEIF", "notes.md", "x.psd", "a.caption", "metadata.csv", "more/b.png")
    assert listing(tmp_path).notes == [
        "not used: a.caption, metadata.csv (captions are read from .txt and metadata.jsonl alone)",
        "not used: b.heic, c.HEIF (cannot be read here: convert it to JPEG or PNG)",
        "not used: more (a sub-folder with pictures)",
        "not used: notes.md, x.psd (no kind of file that is read here)",
    ]


def test_many_files_are_one_line(tmp_path):
    fill(tmp_path, "a.png", *(f"{i}.heic" for i in range(8)))
    (note,) = listing(tmp_path).notes
    assert note.startswith("not used: 0.heic, 1.heic, 2.heic, 3.heic, 4.heic and 3 more (")


def test_a_folder_of_heic_alone_says_so(tmp_path):
    with pytest.raises(InputError, match=r"holds no pictures: .*; not used: a.heic \(cannot be read here: convert"):
        listing(fill(tmp_path, "a.heic"))


def test_two_files_of_metadata(tmp_path):
    with pytest.raises(InputError, match=r"METADATA.jsonl and metadata.jsonl both hold captions: keep one"):
        listing(fill(tmp_path, "a.png", "METADATA.jsonl", "metadata.jsonl"))


def test_a_name_that_would_break_lines(tmp_path):
    with pytest.raises(InputError, match=r"a file with U\+000A in its name, 'a\\nb.png': rename it"):
        listing(fill(tmp_path, "a\nb.png"))
    (tmp_path / "a\nb.png").unlink()
    fill(tmp_path, "Screenshot at 3.04.05\u202fPM.png", "日本\u3000語.png")
    assert len(listing(tmp_path).pictures) == 2

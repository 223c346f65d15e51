"""Pictures depend on prompt and seed alone; the sheet shows what it says."""

import os

import pytest
from PIL import Image

from aclora.core.errors import InputError
from aclora.models.sampling import GenerateConfig, contact_sheet, nearest, read_prompts, sample
from tests.conftest import section

PROMPTS = ["a red house", "a blue boat", "a white cat"]


def make(pipe, prompts=PROMPTS, seeds=(1, 2, 3), **knobs):
    config = section("generate", GenerateConfig, **{"num_inference_steps": 2} | knobs)
    return [p.tobytes() for p in sample(pipe, list(prompts), list(seeds), config, 16)]


def test_the_same_seeds_give_the_same_pictures(tiny):
    assert make(tiny) == make(tiny)
    assert make(tiny)[0] != make(tiny, seeds=(9, 2, 3))[0]


def test_batches_change_nothing_that_is_seen(tiny):
    together, apart = make(tiny), make(tiny, batch_size=1)
    for x, y in zip(together, apart, strict=True):
        assert max(abs(a - b) for a, b in zip(x, y, strict=True)) <= 1


@pytest.mark.parametrize("change", [{"guidance_scale": 1.0}, {"num_inference_steps": 3}], ids=lambda c: next(iter(c)))
def test_knobs_matter(tiny, change):
    assert make(tiny, **change) != make(tiny)


def test_prompts_are_lines(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n\n  a dog \n", encoding="utf-8")
    assert read_prompts(file) == ["a cat", "a dog"]
    with pytest.raises(InputError, match=r"generate.prompts = .* no such file"):
        read_prompts(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        (b"\xef\xbb\xbfa cat\r\na dog\r\n", ["a cat", "a dog"]),
        ("a cat\u2028and a dog\n".encode(), ["a cat\u2028and a dog"]),
        (b"a cat\ra dog", ["a cat", "a dog"]),
    ],
    ids=["Windows", "a separator in a line", "old Mac"],
)
def test_prompts_of_any_editor(tmp_path, content, prompts):
    (tmp_path / "prompts.txt").write_bytes(content)
    assert read_prompts(tmp_path / "prompts.txt") == prompts


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n", "prompts.txt holds no prompts"),
        (b"caf\xe9", "prompts.txt is not UTF-8"),
        ("a cat".encode("utf-16"), "prompts.txt is UTF-16: save it as UTF-8"),
        (b"a cat\na\0dog\n", r"prompts.txt, line 2 has U\+0000 in it"),
        (b"\x1b[2Ja cat", r"prompts.txt, line 1 has U\+001B in it"),
        (b"a cat\n---\n", r"prompts.txt, line 2 is a prompt without a word, '---'"),
        (b"a cat\n" + b"a " * 600, r"prompts.txt, line 2 has 1199 characters: at most 1000"),
        (b"a cat\n" * 200_000, r"prompts.txt has 1200000 bytes: at most 1000000"),
    ],
    ids=["empty", "latin-1", "UTF-16", "NUL", "escape", "no word", "long", "large"],
)
def test_a_file_that_holds_no_prompts(tmp_path, content, said):
    (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_prompts(tmp_path / "prompts.txt")


def test_prompts_in_a_folder_or_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place, said in ((tmp_path, "is a folder, not a file"), (tmp_path / "pipe", "is a named pipe")):
        with pytest.raises(InputError, match=said):
            read_prompts(place)


def test_nearest_finds_the_same_picture_at_another_size():
    colours = [Image.new("RGB", (40, 40), c) for c in ("red", "green", "blue")]
    assert nearest([c.resize((64, 64)) for c in reversed(colours)], colours) == [2, 1, 0]


def test_the_sheet_holds_every_picture_where_it_belongs():
    red, blue = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
    sheet = contact_sheet(["one", "two"], ["left", "right"], [[red, blue], [blue, red]], cell=64)
    centres = [[sheet.getpixel((6 + j * 70 + 32, 30 + i * 94 + 32)) for j in (0, 1)] for i in (0, 1)]
    assert centres == [[(255, 0, 0), (0, 0, 255)], [(0, 0, 255), (255, 0, 0)]]

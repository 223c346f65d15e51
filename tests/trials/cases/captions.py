"""Captions, metadata.jsonl and the file of prompts."""

import os
import re
from collections.abc import Iterator

from tests.trials.case import Case
from tests.trials.tree import PICTURES, STYLE

KIND = "captions and prompts"
TEXT, META, PROMPTS = f"{PICTURES}/05.txt", f"{PICTURES}/metadata.jsonl", "data/prompts.txt"
SAYS = r"05\.(txt|png)"
LONG = " ".join(["a green house in the desert with mountains and a sun"] * 5)


def cases() -> Iterator[Case]:
    yield from captions()
    yield from strays()
    yield from metadata()
    yield from captioner()
    yield from prompts()


def caption(name: str, content: bytes | str, says: str = SAYS, answer="error") -> Case:
    return Case(name, lambda tree: tree.write(TEXT, content), says, answer)


def captions() -> Iterator[Case]:
    yield caption("empty", "")
    yield caption("blank", " \n\t\n")
    for text in (".,.", "...", ",", "!?", "-", "\u200b", "\ufeff", "\u00a0", "\u2028"):
        yield caption(f"nothing but {text!r}", text, SAYS, "said")
    yield caption("NUL", "\0\0\0", SAYS, "said")
    yield caption("NUL in a text", "a green\0 house", SAYS, "said")
    yield caption("an escape", "a \x1b[31mgreen\x1b[0m house", SAYS, "said")
    yield caption("UTF-16", "a green house".encode("utf-16"))
    yield caption("UTF-16 without a mark", "a green house".encode("utf-16-le"), SAYS, "said")
    yield caption("Latin-1", b"a caf\xe9")
    yield caption("a PNG", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    yield caption("a byte order mark", b"\xef\xbb\xbfa green house", "12 pictures", "note")
    yield caption("33 words", " ".join(["house"] * 33), SAYS, "note")
    yield caption("50 words", LONG, SAYS, "note")
    yield caption("one word of 300 letters", "x" * 300, SAYS, "note")
    yield caption("a megabyte", LONG * 20_000, SAYS, "said")
    yield caption("words of another language", "梵高的星空 " * 20, SAYS, "said")
    yield caption("the trigger already", "a green house, zxq style", SAYS, "said")
    yield caption("the trigger in capitals", "a green house, ZXQ Style", SAYS, "sound")
    yield caption("the trigger alone", "zxq style", SAYS, "said")
    yield caption("the trigger twice", "zxq style, zxq style", SAYS, "said")
    yield caption("several lines", "a green house\nin the desert\n", "", "fine")
    yield Case("a folder", lambda tree: tree.path(TEXT).mkdir(), SAYS)
    yield Case("a named pipe", lambda tree: os.mkfifo(tree.path(TEXT)), SAYS)
    yield Case("a link to nothing", lambda tree: tree.path(TEXT).symlink_to("gone.txt"), SAYS, "said")
    yield Case("a link to itself", lambda tree: tree.path(TEXT).symlink_to("05.txt"), SAYS)
    yield Case("a device without an end", lambda tree: tree.path(TEXT).symlink_to("/dev/zero"), SAYS)


def strays() -> Iterator[Case]:
    for name, says in (
        ("13.txt", r"13\.txt"),
        ("O1.txt", r"O1\.txt"),
        ("l2.txt", r"l2\.txt"),
        ("1.txt", r"\b1\.txt"),
        ("01.png.txt", r"01\.png\.txt"),
        ("01 .txt", r"01 \.txt"),
        ("readme.txt", r"readme\.txt"),
    ):
        yield Case(f"{name} beside them", lambda tree, name=name: tree.write(f"{PICTURES}/{name}", "a fish"), says)
    for name in (
        "13.TXT",
        "05.caption",
        "05.json",
        "05.md",
        "05.txt.bak",
        "05.txt~",
        "captions.csv",
        "metadata.csv",
        "metadata.json",
        "Metadata.jsonl",
        "prompts.jsonl",
        "metadata.jsonl.txt",
    ):
        says = name.replace(".", r"\.")
        yield Case(
            f"{name} beside them", lambda tree, name=name: tree.write(f"{PICTURES}/{name}", "a fish"), says, "said"
        )
    for name in ("O5.txt", "05 .txt", "5.txt"):
        spoil = lambda tree, name=name: tree.rename(TEXT, f"{PICTURES}/{name}")  # noqa: E731
        yield Case(f"{name} for 05.txt", spoil, name.replace(".", r"\."))
    yield Case(
        "O5.txt, with the picture that is meant", lambda tree: tree.rename(TEXT, f"{PICTURES}/O5.txt"), r"05\.png"
    )
    yield Case("05.TXT for 05.txt", lambda tree: tree.rename(TEXT, f"{PICTURES}/05.TXT"), r"05\.|, 1 captions?", "said")
    yield Case(
        "05.TXT beside 05.txt", lambda tree: tree.write(f"{PICTURES}/05.TXT", "a fish"), r"05\.(TXT|txt)", "said"
    )
    yield Case(
        "05.PNG for 05.png",
        lambda tree: tree.rename(f"{PICTURES}/05.png", f"{PICTURES}/05.PNG"),
        "12 pictures|05",
        "said",
    )
    yield Case(
        "a folder called captions", lambda tree: tree.write(f"{PICTURES}/captions/05.txt", "x"), "captions", "said"
    )


def listed(name: str, lines: bytes | str, says: str = r"metadata\.jsonl", answer="error") -> Case:
    return Case(f"metadata.jsonl: {name}", lambda tree: tree.write(META, lines), says, answer)


def metadata() -> Iterator[Case]:
    good = '{"file_name": "03.png", "text": "a fish"}\n'
    for name, line in (
        ("no JSON", "03.png: a fish"),
        ("cut JSON", '{"file_name": "03.png", "te'),
        ("a list", '["03.png", "x"]'),
        ("a number", "7"),
        ("null", "null"),
        ("no text", '{"file_name": "03.png"}'),
        ("no name", '{"text": "a fish"}'),
        ("a number for a text", '{"file_name": "03.png", "text": 7}'),
        ("an empty name", '{"file_name": "", "text": "x"}'),
        ("null for a text", '{"file_name": "03.png", "text": null}'),
        ("a list of texts", '{"file_name": "03.png", "text": ["a"]}'),
        ("deep nesting", "[" * 100_000),
        ("one JSON list of all", f"[{good.strip()}]"),
        ("NaN", "NaN"),
    ):
        yield listed(name, line + "\n")
        yield listed(f"{name}, in the second line", good + line + "\n")
    yield listed("an empty text", '{"file_name": "03.png", "text": " "}', "03")
    yield listed("UTF-16", good.encode("utf-16"))
    yield listed("Latin-1", '{"file_name": "03.png", "text": "café"}'.encode("latin-1"))
    yield listed("a byte order mark", good.encode("utf-8-sig"), r"metadata\.jsonl|12 pictures", "said")
    yield listed("empty", "", r"metadata\.jsonl", "said")
    yield listed("a blank line between", good + "\n" + good.replace("03", "02"), r"metadata\.jsonl", "said")
    yield listed("no such picture", good.replace("03", "99"), r"99\.png", "said")
    yield listed("another case", good.replace("03.png", "03.PNG"), r"03\.PNG|, 0 captions", "said")
    yield listed("no ending", good.replace("03.png", "03"), r"03", "said")
    yield listed("another folder", good.replace("03.png", "../pencil/03.png"), r"pencil", "said")
    yield listed("a whole path", good.replace("03.png", "/etc/passwd"), r"passwd", "said")
    yield listed("a folder before the name", good.replace("03.png", "./03.png"), r"03", "said")
    yield listed("a picture twice", good + good.replace("fish", "boat"), r"03\.png|metadata", "said")
    yield listed("a key twice", '{"file_name": "03.png", "text": "a fish", "text": "a boat"}', r"03|metadata", "said")
    yield listed("beside a caption of its own", good.replace("03", "05"), r"05", "said")
    yield listed("text and caption", '{"file_name": "03.png", "text": "a", "caption": "b"}', r"03|metadata", "said")
    yield Case("metadata.jsonl: a folder", lambda tree: tree.path(META).mkdir(), r"metadata\.jsonl")
    yield Case("metadata.jsonl: a named pipe", lambda tree: os.mkfifo(tree.path(META)), r"metadata\.jsonl")
    yield Case(
        "metadata.jsonl: a link to nothing", lambda tree: tree.path(META).symlink_to("gone"), r"metadata\.jsonl", "said"
    )


def captioner() -> Iterator[Case]:
    yield Case("no caption and no captioner", lambda tree: tree.knob("captions.model", "null"), r"03\.png")
    trigger = f"styles.{STYLE}.trigger"
    for words in (28, 31, 40, 200):
        text = " ".join(["zxq"] * words)
        yield Case(f"a trigger of {words} words", lambda tree, text=text: tree.knob(trigger, text), "trigger", "said")


def prompts() -> Iterator[Case]:
    says = r"prompts"
    knob = "generate.prompts"
    for value in (
        "''",
        '"a\\0b"',
        "data/nothing.txt",
        "data",
        "/dev/null",
        "/dev/zero",
        "x" * 5000,
        "models/miniature/card.png",
    ):
        spoil = lambda tree, value=value: tree.knob(knob, value)  # noqa: E731
        yield Case(f"prompts: {value[:30]}", spoil, rf"{says}|{re.escape(value)}")
    for name, content in (
        ("empty", b""),
        ("blank", b" \n\n\t\n"),
        ("UTF-16", "a house\n".encode("utf-16")),
        ("Latin-1", b"a caf\xe9\n"),
    ):
        yield Case(f"prompts: {name}", lambda tree, content=content: tree.write(PROMPTS, content), says)
    for name, content in (
        ("a prompt of 50 words", LONG),
        ("NUL", "a\0b"),
        ("an escape", "a \x1b[31mhouse"),
        ("dots alone", "...\na house"),
        ("the trigger already", "a house, zxq style"),
        ("a prompt twice", "a house\na house"),
        ("the same but for a space", "a house\na house \n"),
        ("a zero-width space", "\u200b\na house"),
    ):
        yield Case(
            f"prompts: {name}",
            lambda tree, content=content: tree.write(PROMPTS, content + "\n"),
            r"prompts|line",
            "said",
        )
    yield Case(
        "prompts: a byte order mark",
        lambda tree: tree.write(PROMPTS, b"\xef\xbb\xbfa house\n"),
        r"1 prompts?|prompts",
        "said",
    )
    yield Case("prompts: a folder", lambda tree: tree.path(PROMPTS).mkdir(), says)
    yield Case("prompts: a named pipe", lambda tree: os.mkfifo(tree.path(PROMPTS)), says)
    yield Case("prompts: a link to itself", lambda tree: tree.path(PROMPTS).symlink_to("prompts.txt"), says)

"""params.yaml that is no YAML, or is YAML that nobody means."""

import os
from collections.abc import Iterator

from tests.trials.case import Case
from tests.trials.tree import STYLE, TOUCHED

KIND = "params.yaml as a file"
FILE = "params.yaml"
SECTIONS = ("styles", "data", "captions", "model", "train", "checkpoints", "audit", "generate", "evaluate", "aclora")


def cases() -> Iterator[Case]:
    yield from broken()
    yield from meant_by_nobody()
    yield from keys()
    yield from sections()
    yield from unusual()


def replaced(name: str, old: str, new: str, says: str, answer="error") -> Case:
    return Case(name, lambda tree: tree.edit(FILE, old, new), says, answer)


def appended(name: str, text: str, says: str, answer="error") -> Case:
    return Case(name, lambda tree: tree.write(FILE, tree.read(FILE) + text.encode()), says, answer)


def whole(name: str, content: bytes | str, says: str = r"params\.yaml", answer="error") -> Case:
    return Case(name, lambda tree: tree.write(FILE, content), says, answer)


def encoded(name: str, encoding: str, answer="error") -> Case:
    return Case(name, lambda tree: tree.write(FILE, tree.read(FILE).decode().encode(encoding)), r"params\.yaml", answer)


def broken() -> Iterator[Case]:
    says = r"params\.yaml"
    yield whole("empty", "")
    yield whole("blank lines alone", "\n \n\n")
    yield whole("comments alone", "# nothing\n")
    yield whole("null", "null\n")
    yield whole("a list at the top", "- train\n- styles\n")
    yield whole("a text at the top", "train\n")
    yield whole("a number at the top", "42\n")
    yield whole("JSON cut off", '{"train": {"epochs": 3')
    yield whole("binary", bytes(range(256)) * 8)
    yield whole("zero bytes", b"\0" * 4096)
    yield whole("a megabyte of one bracket", "[" * 1_000_000)
    yield whole("twenty thousand nested mappings", "{a: " * 20_000)
    yield whole("a merge conflict", "<<<<<<< HEAD\ntrain: {}\n=======\nmethod: lora\n>>>>>>> theirs\n")
    yield replaced("tabs for indentation", "\n  epochs:", "\n\tepochs:", says)
    yield replaced("one space too many", "\n  epochs:", "\n   epochs:", says)
    yield replaced("no colon", "\n  epochs: ", "\n  epochs ", says)
    yield replaced("no space after the colon", "\n  epochs: ", "\n  epochs:", says)
    yield replaced("an open bracket", "figures: [miniature.judging]", "figures: [miniature.judging", says)
    yield replaced("an open quote", "trigger: zxq style", 'trigger: "zxq style', says)
    yield replaced("a colon in a text", "trigger: zxq style", "trigger: zxq: style", says)
    yield replaced("a percent sign first", "trigger: zxq style", "trigger: %zxq", says)
    yield replaced("an at sign first", "trigger: zxq style", "trigger: @zxq", says)
    yield appended("a NUL at the end", "\n\0", says)
    yield appended("an escape character", "\n# \x1b[31m\n", says)
    yield Case("cut in the middle", lambda tree: tree.cut(FILE), says)
    yield encoded("UTF-16", "utf-16")
    yield encoded("UTF-16 without a mark", "utf-16-le")
    yield encoded("UTF-32", "utf-32")
    yield Case("Latin-1", lambda tree: tree.write(FILE, tree.read(FILE) + b"# caf\xe9\n"), says)
    yield Case("missing", lambda tree: tree.remove(FILE), says)
    yield Case("a folder", lambda tree: tree.path(FILE).mkdir(), says)
    yield Case("a link to nothing", lambda tree: tree.path(FILE).symlink_to("nowhere"), says)
    yield Case("a link to itself", lambda tree: tree.path(FILE).symlink_to(FILE), says)
    yield Case("a named pipe", lambda tree: os.mkfifo(tree.path(FILE)), says)
    yield Case("a device without an end", lambda tree: tree.path(FILE).symlink_to("/dev/zero"), says)


def meant_by_nobody() -> Iterator[Case]:
    says = r"params\.yaml"
    call = f'!!python/object/apply:os.system ["touch {TOUCHED}"]'
    yield replaced("a Python object", "trigger: zxq style", f"trigger: {call}", says)
    yield appended("a Python object as a section", f"\nextra: {call}\n", says)
    yield replaced("a Python name", "trigger: zxq style", "trigger: !!python/name:os.system", says)
    yield replaced("an unknown tag", "trigger: zxq style", "trigger: !mine zxq", says)
    yield replaced("a set", "figures: [miniature.judging]", "figures: !!set {miniature.judging}", says)
    yield replaced("binary text", "trigger: zxq style", "trigger: !!binary AAECAw==", "trigger")
    yield replaced("a date for a trigger", "trigger: zxq style", "trigger: 2024-01-01", "trigger")
    yield replaced("an alias without an anchor", "trigger: zxq style", "trigger: *nowhere", says)
    yield replaced("a value that holds itself", "  limit: null", "  limit: &a [*a]", says)
    yield replaced("a mapping that holds itself", "  limit: null", "  limit: &a {b: *a}", says)
    yield replaced("a section that holds itself", "\nbase: {}", "\nbase: &a {a: *a}", says)
    yield replaced("a merge of itself", "\nbase: {}", "\nbase: &a\n  <<: *a", says, "sound")
    yield replaced("a merge of a text", "\nbase: {}", "\nbase:\n  <<: text", says)
    laughs = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12))
    yield appended("a billion laughs", f"\nl0: &l0 [ha]\n{laughs}\n", says)
    inside = ", ".join(f"&l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12))
    yield replaced("a billion laughs in a value", "  limit: null", f"  limit: [&l0 [ha], {inside}]", says)
    yield appended("two documents", "\n---\ntrain: {}\n", says)
    yield replaced("sixty-based number", "  epochs: 8", "  epochs: 1:30", "epochs")
    yield replaced("octal number", "  epochs: 8", "  epochs: 010", "epochs|10 epochs", "said")
    yield replaced("number with underscores", "  epochs: 8", "  epochs: 1_0", "epochs|10 epochs", "said")
    yield replaced("number in Arabic digits", "  epochs: 8", "  epochs: ٨", "epochs")
    yield replaced("number with a unit", "  epochs: 8", "  epochs: 8 epochs", "epochs")
    yield replaced("decimal comma", "learning_rate: 1e-3", "learning_rate: 0,001", "learning_rate")
    yield replaced("curly quotes", "trigger: zxq style", "trigger: “”", "trigger", "sound")


def keys() -> Iterator[Case]:
    for key in ("1", "1.5", "true", "null", "~", ".inf", "2024-01-01", "[a]", "? {a: 1}\n", "0x1", "''", '"\\0"'):
        shown = key.strip()
        yield replaced(f"{shown} as a section", "\nbase: {}", f"\nbase: {{}}\n{key}: {{}}", r"params\.yaml")
        yield replaced(f"{shown} as a knob", "\n  epochs: ", f"\n  {key}: 3\n  epochs: ", r"train|params\.yaml")
    for key in ("yes", "on", "method ", "Train", "style", "stlyes", "évaluate", "train.epochs", "x" * 300):
        yield replaced(f"{key[:30]} as a section", "\nbase: {}", f"\nbase: {{}}\n{key}: {{}}", key.strip()[:30])
    yield replaced("a section twice", "\nbase: {}", "\nbase: {}\ntrain:\n  epochs: 3", "train")
    yield replaced("the method twice", "\nmethod: aclora", "\nmethod: aclora\nmethod: lora", "method")
    yield replaced("an empty section twice", "\nbase: {}", "\nbase: {}\nbase: {}", "base")
    for section, knob in (("train", "epochs: 3"), ("aclora", "alpha: 2.0"), ("generate", "seed: 5")):
        yield replaced(f"{section}.{knob} twice", f"\n{section}:\n", f"\n{section}:\n  {knob}\n", knob.split(":")[0])
    again = f"\n  {STYLE}: {{pictures: data/styles/pencil, trigger: pen style, reference: data/styles/pencil}}"
    yield replaced("a style twice", "\nstyles:", f"\nstyles:{again}", STYLE)
    yield replaced("a knob of a style twice", "    trigger: zxq", "    trigger: abc\n    trigger: zxq", "trigger")


def sections() -> Iterator[Case]:
    for section in SECTIONS:
        yield Case(f"{section} is missing", without(section), section)
        for value in ("null", "[]", "text", "0", "true", "{}"):
            yield Case(f"{section}: {value}", without(section, f"{section}: {value}"), section)
    for value in ("null", "[]", "text", "0", "{}", "[[pictures, x]]"):
        text = f"styles:\n  {STYLE}: {value}"
        yield Case(f"the style's entry: {value}", without("styles", text), STYLE)
    for section, knob in (
        ("train", "epcohs: 3"),
        ("model", "nmae: x"),
        ("evaluate", "clpi: null"),
        ("base", "rank: 4"),
    ):
        name = knob.split(":")[0]
        text = (
            ("\nbase: {}", f"\nbase: {{{knob}}}") if section == "base" else (f"\n{section}:", f"\n{section}:\n  {knob}")
        )
        yield replaced(f"misspelt {section}.{name}", *text, name)
    for section, name in (
        ("train", "epochs"),
        ("model", "revision"),
        ("evaluate", "clip"),
        ("generate", "seed"),
        ("aclora", "alpha"),
        ("captions", "model"),
        ("audit", "strict"),
        ("data", "share"),
        ("checkpoints", "every"),
        (f"styles.{STYLE}", "trigger"),
        (f"styles.{STYLE}", "reference"),
    ):
        full = f"{section}.{name}"
        yield Case(f"{full} is missing", lambda tree, full=full: tree.knob(full, None), name)


def without(section: str, instead: str = ""):
    """Take a whole section out of params.yaml, or put another text in its place."""

    def spoil(tree):
        out, inside = [], False
        for line in tree.read(FILE).decode().split("\n"):
            if line and not line.startswith((" ", "#")):
                inside = line.split(":")[0] == section
                out += [instead] if inside and instead else []
            out += [] if inside else [line]
        tree.write(FILE, "\n".join(out))

    return spoil


def unusual() -> Iterator[Case]:
    """What is fine after all."""
    yield encoded("a byte order mark", "utf-8-sig", "sound")
    yield Case("Windows line ends", lambda tree: tree.write(FILE, tree.read(FILE).replace(b"\n", b"\r\n")), "", "fine")
    yield replaced("an anchor used twice", "  epochs: 8", "  epochs: &n 8", "", "fine")
    yield replaced("quoted keys", "\n  epochs:", '\n  "epochs":', "", "fine")
    yield replaced("a trigger in Chinese", "trigger: zxq style", "trigger: 梵高 风格", "trigger", "sound")
    yield appended("an end mark", "\n...\n", "", "fine")

"""What an adapter file says of itself: its header, and PEFT's settings beside it."""

import json
from collections.abc import Iterator

import torch
from safetensors.torch import save

from tests.trials.case import Case
from tests.trials.cases.adapters import FILE, GOOD, INSPECT, factors, kohya, pair, raw, tensors, three
from tests.trials.cases.networks import Payload

KIND = "headers of adapter files"


def cases() -> Iterator[Case]:
    yield from headers()
    yield from peft_folders()


def headers() -> Iterator[Case]:
    a, b = pair()
    good = {"r": 4, "lora_alpha": 4}
    hang = "(" + "a?" * 30 + "a" * 30 + ")"  # takes years on a name that nearly fits
    deep = "(([a-z0-9_.]+)+)+!"
    settings = {
        "rank_pattern with a regular expression that never ends": good | {"rank_pattern": {deep: 4}},
        "alpha_pattern with a regular expression that never ends": good | {"alpha_pattern": {deep: 4, hang: 3}},
        "rank_pattern that is no regular expression": good | {"rank_pattern": {"(((": 4}},
        "rank_pattern that is a list": good | {"rank_pattern": [1]},
        "rank_pattern that is a text": good | {"rank_pattern": "x"},
        "rank_pattern of texts": good | {"rank_pattern": {"to_q": "four"}},
        "alpha_pattern of null": good | {"alpha_pattern": {"to_q": None}},
        "r that is a text": good | {"r": "4"},
        "r of 0": {"r": 0, "lora_alpha": 4},
        "r that is null": {"r": None, "lora_alpha": 4},
        "another r": {"r": 8, "lora_alpha": 4},
        "alpha that is a text": {"r": 4, "lora_alpha": "many"},
        "alpha that is null": {"r": 4, "lora_alpha": None},
        "alpha that is a list": {"r": 4, "lora_alpha": [1, 2, 3]},
        "alpha of NaN": {"r": 4, "lora_alpha": float("nan")},
        "alpha of 1e400": {"r": 4, "lora_alpha": 10**400},
        "use_rslora that is a text": good | {"use_rslora": "no"},
        "peft_type that is a number": good | {"peft_type": 7},
    }
    for name, setting in settings.items():
        described = {f"unet.{key}": value for key, value in setting.items()}
        answer = "sound" if "regular" in name or "rslora" in name or "peft_type" in name else "error"
        yield from tensors(name, factors(a, b), {"lora_adapter_metadata": json.dumps(described)}, "stranger", answer)
    for text in ("", "null", "[]", "7", '"text"', "{", "[" * 100_000, '{"unet.r": 4}x', '{"unet": 4}', '{"": 4}'):
        answer = "sound" if text in ('{"unet": 4}', '{"": 4}', "") else "error"
        yield from tensors(
            f"lora_adapter_metadata: {text[:20]!r}", factors(a, b), {"lora_adapter_metadata": text}, "stranger", answer
        )
    for text in ("²", "-1", "0", "99999999999999999999", "٢", "1e3", "\x1b[2J"):
        yield from tensors(
            f"layers_per_block: {text!r}",
            kohya(a, b, torch.tensor(4.0)),
            {"layers_per_block": text},
            "stranger",
            "sound",
        )
    for name, text in (
        ("an escape", "\x1b[31mred"),
        ("a terminal's title", "\x1b]0;gone\a"),
        ("a line break", "x\nerror: y"),
        ("a backspace", "abc\b\b\bxyz"),
        ("a C1 control", "\x9b31m"),
        ("a reversal", "\u202egnp"),
        ("10 MB", "x" * 10_000_000),
    ):
        for key in ("trigger", "ss_output_name", "\x1bkey"):
            yield Case(
                f"inspect: {name} in {key!r}",
                lambda tree, key=key, text=text: tree.write(FILE, save(factors(*pair()), {key: text})),
                "",
                "sound",
                INSPECT,
            )
    yield from three("a number in the metadata", raw({"__metadata__": {"x": 7}}))
    yield Case(
        "export: the miniature's adapter for sd15",
        lambda tree: None,
        "sd15|base",
        command=("aclora", "export", GOOD, "--to", "kohya", "--out", "k.safetensors", "--base", "sd15"),
    )
    yield Case(
        "export: the miniature's adapter for sdxl",
        lambda tree: None,
        "sdxl|base",
        command=("aclora", "export", GOOD, "--to", "kohya", "--out", "k.safetensors", "--base", "sdxl"),
    )


def peft_folders() -> Iterator[Case]:
    a, b = pair()
    layer = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    good = {"peft_type": "LORA", "r": 4, "lora_alpha": 4}

    def folder(config: object, weights: bytes | None = None):
        def spoil(tree):
            content = config if isinstance(config, bytes) else json.dumps(config).encode()
            tree.write("peft/adapter_config.json", content)
            tree.write("peft/adapter_model.safetensors", weights or save(factors(a, b, layer)))

        return spoil

    command = ("aclora", "inspect", "peft")
    for name, config in (
        ("cut", b'{"r": 4'),
        ("a list", []),
        ("null", None),
        ("binary", b"\xff\xfe"),
        ("r in words", good | {"r": "four"}),
        ("r of -1", good | {"r": -1}),
        ("another kind", good | {"peft_type": "IA3"}),
        ("alpha in words", good | {"lora_alpha": "x"}),
        ("a base that is a number", good | {"base_model_name_or_path": 7}),
        ("a base with an escape", good | {"base_model_name_or_path": "\x1b[31m"}),
        ("a pattern that never ends", good | {"rank_pattern": {"(([a-z0-9_.]+)+)+!": 4}}),
        ("a pattern that is a number", good | {"rank_pattern": 7}),
        ("alpha of zero rank", good | {"r": 0}),
    ):
        answer = (
            "sound"
            if name in ("a base that is a number", "a base with an escape", "a pattern that never ends")
            else "error"
        )
        yield Case(f"inspect: PEFT's settings: {name}", folder(config), "peft", answer, command)
    yield Case(
        "inspect: PEFT's folder without settings",
        lambda tree: tree.write("peft/adapter_model.safetensors", save(factors(a, b, layer))),
        "adapter_config",
        command=command,
    )
    yield Case(
        "inspect: PEFT's folder, pickled",
        lambda tree: torch.save({"x": Payload()}, tree.path("peft/adapter_model.bin")),
        "pickle",
        command=command,
    )
    yield Case("inspect: an empty folder", lambda tree: tree.path("peft").mkdir(), "peft", command=command)

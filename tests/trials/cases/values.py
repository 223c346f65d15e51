"""Knobs with values that params.schema.json refuses, or that no run can work with."""

import json
from collections.abc import Iterator

from tests.conftest import ROOT
from tests.trials.case import Case
from tests.trials.tree import STYLE

KIND = "values in params.yaml"
JUDGE = "models/miniature/judge"

# Beyond what the schema can say: knob, value as YAML, what else must be in place, what the line must match.
BEYOND: list[tuple[str, str, dict[str, str]]] = [
    ("train.resolution", "4", {}),
    ("train.resolution", "12", {}),
    ("train.resolution", "63", {}),
    ("train.resolution", "100000", {}),
    ("train.resolution", "1000000000000", {}),
    ("train.seed", "9223372036854775808", {}),
    ("train.seed", "18446744073709551616", {}),
    ("train.seed", "1" + 40 * "0", {}),
    ("data.seed", "18446744073709551616", {}),
    ("data.seed", "1" + 40 * "0", {"data.corrupt": "noise"}),
    ("generate.seed", "18446744073709551616", {}),
    ("generate.seed", "18446744073709551610", {}),
    ("generate.num_inference_steps", "5000", {}),
    ("generate.num_inference_steps", "1001", {}),
    ("generate.guidance_scale", "1e308", {}),
    ("generate.guidance_scale", "1e400", {}),
    ("aclora.alpha", "1e400", {}),
    ("aclora.max_rank", "65", {}),
    ("aclora.max_rank", "1000000", {}),
    ("aclora.min_index", "32", {}),
    ("aclora.min_index", "100", {}),
    ("aclora.max_index", "1", {"aclora.min_index": "2"}),
    ("aclora.threshold_max", "0.5", {"aclora.threshold": "0.9"}),
    ("lora.rank", "65", {"method": "lora"}),
    ("trilora.rank", "100000", {"method": "trilora"}),
    ("dora.rank", "65", {"method": "dora"}),
    ("loha.rank", "1000000", {"method": "loha"}),
    ("lokr.rank", "1000000", {"method": "lokr"}),
    ("oft.block_size", "7", {"method": "oft"}),
    ("oft.block_size", "1000000", {"method": "oft"}),
    ("adalora.init_r", "65", {"method": "adalora"}),
    ("adalora.target_r", "13", {"method": "adalora"}),
    ("adalora.final", "0.9", {"method": "adalora", "adalora.warmup": "0.2"}),
    ("generate.adapter", "signal", {"method": "lora"}),
    ("generate.adapter", "signal", {"method": "dora"}),
    ("method", "lroa", {}),
    ("method", "LORA", {}),
    ("method", "''", {}),
    ("method", "' '", {}),
    ("method", "null", {}),
    ("method", "7", {}),
    ("method", "[lora]", {}),
    ("method", "{lora: {}}", {}),
    ("method", ".lora", {}),
    ("method", "lora.", {}),
    ("method", "..", {}),
    ("method", "a..b", {}),
    ("method", "aclora.methods.nothing", {}),
    ("method", "contract", {}),
    ("method", "__init__", {}),
    ("method", "../methods/lora", {}),
    ("method", '"lora\\n"', {}),
    ("method", '"lo\\0ra"', {}),
    ("model.family", "flux", {}),
    ("model.family", "stable_diffusion_3", {}),
    ("model.family", "sampling", {}),
    ("model.family", "captioner", {}),
    ("train.feature_network", "vit", {}),
    ("train.feature_network", "fid", {"train.feature_loss": "0.1"}),
    ("train.feature_network", "contract", {"train.feature_loss": "0.1"}),
    ("train.feature_encoder", "models/nothing", {"train.feature_loss": "0.1"}),
    ("train.feature_encoder", JUDGE, {"train.feature_loss": "0.1", "train.watch": JUDGE}),
    ("train.feature_encoder", "''", {"train.feature_loss": "0.1"}),
    ("train.watch", "models/nothing", {}),
    ("captions.watch", "models/nothing", {}),
    ("model.watch", "models/miniature", {}),
    ("evaluate.watch", "models/nothing", {}),
    ("evaluate.watch", "models/miniature/dino", {}),
    ("evaluate.watch_figures", "miniature/nothing", {}),
    ("data.limit", "13", {}),
    ("data.corrupt", "captions", {"data.limit": "1", "data.share": "1"}),
    ("data.foreign", "data/nothing", {"data.corrupt": "foreign"}),
    ("data.foreign", "data/nothing", {}),
    ("data.foreign", "data/prompts.txt", {"data.corrupt": "foreign"}),
    ("data.foreign", "models", {"data.corrupt": "foreign"}),
    ("train.learning_rate", "1e-400", {}),
    ("train.learning_rate", "0.0", {}),
    ("evaluate.held_out", "1", {}),
    ("audit.min_kept", "1", {}),
    (f"styles.{STYLE}.trigger", "''", {}),
    (f"styles.{STYLE}.trigger", "' '", {}),
    (f"styles.{STYLE}.trigger", "'.'", {}),
    (f"styles.{STYLE}.trigger", "', ,'", {}),
    (f"styles.{STYLE}.trigger", '"\\u200b"', {}),
    (f"styles.{STYLE}.trigger", '"zxq\\0style"', {}),
    (f"styles.{STYLE}.trigger", '"zxq \\e[31mstyle"', {}),
    (f"styles.{STYLE}.trigger", " ".join(["zxq"] * 40), {}),
]


def cases() -> Iterator[Case]:
    schema = json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8"))
    for knob, node in knobs(schema):
        for value in wrong(node):
            yield case(knob, value, {})
    for knob, value, beside in BEYOND:
        yield case(knob, value, beside)


def case(knob: str, value: str, beside: dict[str, str]) -> Case:
    def spoil(tree):
        for other, text in beside.items():
            tree.knob(other, text)
        tree.knob(knob, value)

    more = "".join(f", {other}: {text}" for other, text in beside.items())
    shown = value if len(value) < 40 else f"{value[:30]}… ({len(value)} characters)"
    return Case(f"{knob}: {shown}{more}", spoil, rf"\b{knob.rpartition('.')[2]}\b")


def knobs(schema: dict, path: str = "") -> Iterator[tuple[str, dict]]:
    """Every knob and its part of the schema; of `styles` those of the style that is there."""
    inner = dict(schema.get("properties", {}))
    if path == "styles":
        inner = {STYLE: schema["additionalProperties"]}
    for name, node in inner.items():
        full = f"{path}.{name}".lstrip(".")
        if node.get("type") == "object":
            yield from knobs(node, full)
        elif full != "method":
            yield full, node


def wrong(node: dict) -> list[str]:
    """Values that a knob with this schema does not take, as YAML."""
    parts = node.get("anyOf", [node])
    kinds = {kind for part in parts for kind in (part.get("type"), "enum" if "enum" in part or "const" in part else "")}
    if isinstance(node.get("type"), list):
        kinds |= set(node["type"])
    numeric, free_text = bool(kinds & {"number", "integer"}), "string" in kinds and "enum" not in kinds
    values = ["{a: 1}"]
    values += [] if "array" in kinds else ["[1]"]
    values += ["[1]", "text"] if "array" in kinds else []
    values += [] if "null" in kinds else ["null"]
    values += [] if "boolean" in kinds else ["true"]
    values += [] if free_text else ["many"]
    values += [".inf", "-.inf", ".nan"] if numeric else ["7"]
    values += ["1.5", "'3'"] if numeric and "number" not in kinds else []
    for part in parts:
        low, high = part.get("minimum", part.get("exclusiveMinimum")), part.get("maximum", part.get("exclusiveMaximum"))
        values += [str(low) if "exclusiveMinimum" in part else str(low - 1)] if low is not None else []
        values += [str(high) if "exclusiveMaximum" in part else str(high + 1)] if high is not None else []
    return list(dict.fromkeys(values))

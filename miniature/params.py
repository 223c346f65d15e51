"""Reads miniature/params.yaml: everything at the top, with the chosen size preset laid over it."""

from pathlib import Path

import yaml

FILE = Path(__file__).with_name("params.yaml")


def read(file: Path = FILE) -> dict:
    """The parameters as a plain dictionary; `preset` names the one of `presets` that applies."""
    params = yaml.safe_load(file.read_text(encoding="utf-8"))
    presets = params.pop("presets")
    name = params.pop("preset")
    if name not in presets:
        raise SystemExit(f"{file}: preset {name!r} is none of {', '.join(presets)}")
    return params | presets[name]

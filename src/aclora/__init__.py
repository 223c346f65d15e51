"""AC-LoRA and its rivals: teach a text-to-image model a style, and measure that it worked.

What a notebook or another program needs, loaded when it is first used:

- `restart`, `restart_peft`: RESTART on LoRA factors, or in place on a PEFT model
- `read_lora`, `export_lora`: LoRA files of any trainer, read and written
- `compare`: two finished runs side by side
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aclora.lora.export import write as export_lora
    from aclora.lora.files import read as read_lora
    from aclora.lora.peft import restart_peft
    from aclora.lora.restart import restart
    from aclora.report.comparison import compare_runs as compare

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "export_lora", "read_lora", "restart", "restart_peft"]

_HOMES = {
    "compare": "aclora.report.comparison:compare_runs",
    "export_lora": "aclora.lora.export:write",
    "read_lora": "aclora.lora.files:read",
    "restart": "aclora.lora.restart:restart",
    "restart_peft": "aclora.lora.peft:restart_peft",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'aclora' has no attribute {name!r}")
    module, _, function = _HOMES[name].partition(":")
    return globals().setdefault(name, getattr(import_module(module), function))


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))

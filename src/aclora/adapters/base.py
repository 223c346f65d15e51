"""No adapter: the base model as it is, the yardstick of every other method."""

from dataclasses import dataclass

from aclora.adapters import Method


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


class Adapter(Method):
    """Trains nothing and changes nothing."""

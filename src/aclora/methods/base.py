"""No adapter: the base model as it is, the yardstick of every other method."""

from dataclasses import dataclass

from aclora.core.method import Method


@dataclass(frozen=True)
class BaseConfig:
    """Nothing to choose."""


class Base(Method):
    """Trains nothing and changes nothing."""

    config_type = BaseConfig


METHOD = Base

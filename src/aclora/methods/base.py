"""No adapter: the base model as it is, the yardstick of every other method."""

from aclora.core.config import Config
from aclora.core.method import Method


class BaseConfig(Config):
    """Nothing to choose."""


class Base(Method):
    """Trains nothing and changes nothing."""

    config_type = BaseConfig


METHOD = Base

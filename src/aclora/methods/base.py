"""No adapter: the base model alone, the yardstick of every other method."""

from aclora.core.config import Config
from aclora.core.method import Method


class BaseConfig(Config):
    """The `base` section of params.yaml: no knobs."""


class Base(Method):
    """Trains nothing: every hook keeps its default."""

    config_type = BaseConfig


METHOD = Base

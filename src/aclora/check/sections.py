"""Which model reads which section of params.yaml: what `aclora check` loads and params.schema.json is made from."""

from aclora.audit.signatures import AuditConfig
from aclora.core import discovery
from aclora.core.config import Config
from aclora.core.method import method_named
from aclora.core.model import ModelConfig
from aclora.data.corruption import DataConfig
from aclora.evaluation.evaluate import EvaluateConfig
from aclora.models.captioner import CaptionsConfig
from aclora.models.sampling import GenerateConfig
from aclora.training.checkpoints import CheckpointsConfig
from aclora.training.loop import TrainConfig

SECTIONS: dict[str, type[Config]] = {
    "captions": CaptionsConfig,
    "model": ModelConfig,
    "data": DataConfig,
    "train": TrainConfig,
    "checkpoints": CheckpointsConfig,
    "audit": AuditConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
}


def methods() -> dict[str, type[Config]]:
    """The section of every method in the folder of methods."""
    return {name: method_named(name).config_type for name in discovery.names("methods")}

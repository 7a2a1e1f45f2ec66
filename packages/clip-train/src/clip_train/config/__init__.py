"""A training run as data: `TrainConfig`, groups of strict, frozen records that check themselves.

Field names are the flags of the command line (open_clip's names, dashes as underscores); `flags` builds the parser
from these records and their `help`. A run saves its resolved configuration as `config.json`. What this room leaves
out: whether a path or a model name exists, which `plan` finds out before anything is written.
"""

from __future__ import annotations

from clip_core.preprocess import AugmentConfig
from clip_train.config.checkpoint import CheckpointConfig
from clip_train.config.data import DataConfig
from clip_train.config.evaluation import EvaluationConfig
from clip_train.config.flag import KeyValues
from clip_train.config.logging import LoggingConfig
from clip_train.config.model import ModelConfig
from clip_train.config.naflex import FlexConfig
from clip_train.config.objective import ObjectiveConfig
from clip_train.config.optim import OptimConfig
from clip_train.config.parallel import ParallelConfig
from clip_train.config.run import RunConfig
from clip_train.config.train import TrainConfig, adam_defaults, groups

__all__ = [
    "AugmentConfig",
    "CheckpointConfig",
    "DataConfig",
    "EvaluationConfig",
    "FlexConfig",
    "KeyValues",
    "LoggingConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "ParallelConfig",
    "RunConfig",
    "TrainConfig",
    "adam_defaults",
    "groups",
]

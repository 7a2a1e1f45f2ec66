"""Trains CLIP models: `train(TrainConfig.of(model=..., train_data=...))`, or `clip-train` on the command line.

A run is one typed configuration; it leaves a folder with its metrics and a bundle that clip-core loads.
"""

from __future__ import annotations

from clip_train.__about__ import __version__
from clip_train.config import (
    AugmentConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)
from clip_train.guard import TrainingDiverged
from clip_train.run import RunResult, train

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "RunResult",
    "TrainConfig",
    "TrainingDiverged",
    "__version__",
    "train",
]

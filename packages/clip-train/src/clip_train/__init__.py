"""Trains CLIP models: `train(TrainConfig.of(model=..., train_data=...))`, or `clip-train` on the command line.

A run is one typed configuration; it leaves a folder with its metrics and a bundle that clip-core loads. The names
below load with their rooms when first used: the command line has to speak to the system before torch is there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clip_train.__about__ import __version__

if TYPE_CHECKING:
    from clip_train.config import (
        AugmentConfig,
        CheckpointConfig,
        DataConfig,
        EvaluationConfig,
        LoggingConfig,
        ModelConfig,
        ObjectiveConfig,
        OptimConfig,
        ParallelConfig,
        RunConfig,
        TrainConfig,
    )
    from clip_train.guard import TrainingDiverged
    from clip_train.run import RunResult, train
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'clip_train' has no attribute {name!r}")
        room = {"RunResult": "run", "TrainingDiverged": "guard", "train": "run"}.get(name, "config")
        return getattr(importlib.import_module(f"clip_train.{room}"), name)


__all__ = [
    "AugmentConfig",
    "CheckpointConfig",
    "DataConfig",
    "EvaluationConfig",
    "LoggingConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "ParallelConfig",
    "RunConfig",
    "RunResult",
    "TrainConfig",
    "TrainingDiverged",
    "__version__",
    "train",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

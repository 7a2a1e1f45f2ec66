"""The learning rate as a pure function of the step, the same numbers as open_clip's schedules. Steps count from 0."""

from __future__ import annotations

import math

from clip_train.config import OptimConfig

__all__ = ["learning_rate"]


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """Learning rate of `step` in a run of `total_steps`.

    Linear warm-up that reaches `config.lr` with the last warm-up step, then half a cosine towards 0 ("cosine") or
    `config.lr` throughout ("const"). A warm-up longer than the run never ends, as in open_clip.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.lr_scheduler == "const":
        return config.lr
    # In this order of operations the numbers are open_clip's to the last bit.
    angle = math.pi * (step - config.warmup) / (total_steps - config.warmup)
    return 0.5 * (1 + math.cos(angle)) * config.lr

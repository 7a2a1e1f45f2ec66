"""The learning rate as a pure function of the step, the same numbers as open_clip's schedules. Steps count from 0."""

from __future__ import annotations

import math

from clip_train.config import OptimConfig

__all__ = ["cooldown_steps", "learning_rate"]


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """Learning rate of `step` in a run of `total_steps`.

    Linear warm-up that reaches `config.lr` with the last warm-up step, then half a cosine towards 0 ("cosine"),
    `config.lr` throughout ("const"), or that until the last epochs take it down to `config.lr_cooldown_end` along a
    polynomial ("const-cooldown"). A warm-up longer than the run never ends, as in open_clip. With
    `config.skip_scheduler` it is `config.lr` in every step, without a warm-up too.
    """
    if config.skip_scheduler:
        return config.lr
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    # In this order of operations the numbers are open_clip's to the last bit.
    if config.lr_scheduler == "cosine":
        angle = math.pi * (step - config.warmup) / (total_steps - config.warmup)
        return 0.5 * (1 + math.cos(angle)) * config.lr
    length = cooldown_steps(config, total_steps)
    into = step - (total_steps - length)
    if not length or into < 0:
        return config.lr
    left: float = (1 - into / length) ** config.lr_cooldown_power
    return left * (config.lr - config.lr_cooldown_end) + config.lr_cooldown_end


def cooldown_steps(config: OptimConfig, total_steps: int) -> int:
    """How many of the `total_steps`, at their end, take the learning rate down."""
    if config.lr_scheduler != "const-cooldown" or config.epochs_cooldown is None:
        return 0
    return -(-total_steps * config.epochs_cooldown // config.epochs)

"""Compilation of the model (torch.compile)."""

from __future__ import annotations

from typing import Any

from torch import nn

import clip_core
from clip_train.config import ParallelConfig

__all__ = ["compile_block", "compile_model"]


def compile_model(model: clip_core.Clip, config: ParallelConfig) -> clip_core.Clip:
    """Compile `model` in place where the flags ask for it, and return it."""
    return model


def compile_block(block: nn.Module, config: ParallelConfig) -> None:
    """Compile one block in place."""


def arguments_of(config: ParallelConfig) -> dict[str, Any]:
    """What torch.compile is told."""
    return {}

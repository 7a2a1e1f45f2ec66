"""How the model is spread over the processes, how it is compiled, and how many samples fit."""

from __future__ import annotations

from clip_train.parallel.compiling import check_compiler, compile_objective
from clip_train.parallel.sharding import clip_gradients, gathered, gradient_norm, is_sharded, local_parts, whole_weights
from clip_train.parallel.spreading import spread

__all__ = [
    "check_compiler",
    "compile_objective",
    "clip_gradients",
    "gathered",
    "gradient_norm",
    "is_sharded",
    "local_parts",
    "spread",
    "whole_weights",
]

"""Compilation with torch.compile: the blocks that towers repeat, each by itself, and the losses.

Blocks of a kind share what is compiled, so that a deep tower compiles as fast as a shallow one, texts stay packed on
their real tokens, and the model may be replicated or in pieces. Between the blocks Python goes on as before. On a CPU
texts are sorted by length for the attention, which is other work for every batch: such towers are left as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import clip_core
from clip_core.errors import ConfigError, nearest
from clip_core.towers import TextTransformer
from clip_train.config import ParallelConfig
from clip_train.data.decode import Batch
from clip_train.objective import Features, Objective
from clip_train.parallel.blocks import find_blocks

__all__ = ["check_compiler", "compile_blocks", "compile_objective"]

_log = logging.getLogger(__name__)

# Image, packed text and its last block, with gradients and without, with fixed shapes and with free ones.
_MOST_VERSIONS = 64


def check_compiler(config: ParallelConfig) -> None:
    """Raise `ConfigError` for a backend that torch does not have."""
    if not config.torchcompile or config.torchcompile_backend is None:
        return
    known = [str(name) for name in torch._dynamo.list_backends(None)]
    if config.torchcompile_backend not in known:
        close = nearest(config.torchcompile_backend, known) or known
        raise ConfigError(
            f"torchcompile_backend is {config.torchcompile_backend!r}, which this torch does not have. "
            f"Did you mean {', '.join(close)}?"
        )


def compile_blocks(model: clip_core.Clip, config: ParallelConfig, device: torch.device) -> int:
    """Compile the blocks of `model` in place, at their first call; how many, 0 without --torchcompile."""
    if not config.torchcompile:
        return 0
    torch._dynamo.config.recompile_limit = max(_MOST_VERSIONS, torch._dynamo.config.recompile_limit)
    left = set(_sorting_blocks(model)) if device.type == "cpu" else set()
    blocks = [block for block in find_blocks(model) if block not in left]
    for block in blocks:
        # Not the call: what is hung on it, as the gathering of pieces, is no work for a compiler.
        block.forward = torch.compile(block.forward, **_arguments(config))
    _log.info("%d blocks are compiled%s", len(blocks), ", those of the texts are not, on a CPU" if left else "")
    return len(blocks)


def compile_objective(objective: Objective, config: ParallelConfig, processes: int) -> Objective:
    """The same losses, compiled where the strategy says so.

    The update is one fused kernel without a compiler, so "step" compiles what "task" does. With several processes the
    losses over all pairs talk to each other in between and are left as they are.
    """
    if not config.torchcompile or config.torchcompile_strategy == "model":
        return objective
    return _Compiled(objective, config, joint=processes == 1)


def _sorting_blocks(model: clip_core.Clip) -> list[nn.Module]:
    """Those whose texts are sorted by length, on a CPU."""
    tower = model.text_tower
    if isinstance(tower, TextTransformer) and tower.text_config.causal and tower.cls_emb is None:
        return list(tower.transformer.resblocks)
    return []


class _Compiled:
    def __init__(self, objective: Objective, config: ParallelConfig, *, joint: bool) -> None:
        arguments = _arguments(config)
        self._objective = objective
        self._joint = torch.compile(objective.joint, **arguments) if joint else objective.joint
        self._own = torch.compile(objective.own, **arguments)

    def joint(self, features: Features, extra: dict[str, Tensor]) -> dict[str, Tensor]:
        return self._joint(features, extra)

    def cached(self, batch: Batch) -> dict[str, Tensor]:
        return self._objective.cached(batch)

    def own(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        return self._own(output, batch)

    def weights(self, batches: Sequence[Batch]) -> Tensor | None:
        return self._objective.weights(batches)


def _arguments(config: ParallelConfig) -> dict[str, Any]:
    return {"backend": config.torchcompile_backend or "inductor", "mode": config.torchcompile_mode}

"""When the short way through a causal text tower may be taken, and the prefix trees to take it with.

The way itself is in `layers.reading`; which position is the feature, the tower says.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clip_core.layers.reading import PrefixTree, plant

__all__ = ["plant_texts", "readable"]

_SIZES = {"cpu": 512}
"""Nodes of a tree by device: on a CPU more fall out of the cache and fewer leave the matrix products small."""
_OTHER_SIZE = 32_768
_WORTH = 0.8
"""Share of the padded batch below which the detour over trees is shorter; it costs a copy per block."""


def readable(tokens: Tensor) -> bool:
    """Whether the ids can be looked at without waiting for a device and without breaking a trace or a transform."""
    return (
        type(tokens) is Tensor
        and tokens.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not torch._C._functorch.is_functorch_wrapped_tensor(tokens)
    )


def plant_texts(tokens: Tensor, read: Tensor, device: torch.device) -> list[PrefixTree] | None:
    """Trees on `device` of the texts, or None where they would not be shorter than the padded batch.

    Args:
        tokens: (B, S) ids that are `readable`.
        read: (B,) the position of each row that is its feature.
        device: of the weights.
    """
    if not tokens.numel():
        return None
    trees = plant(tokens.long().numpy(), read.long().numpy(), _SIZES.get(device.type, _OTHER_SIZE))
    if sum(len(tree.tokens) for tree in trees) > _WORTH * tokens.numel():
        return None
    return trees if device.type == "cpu" else [tree.to(device) for tree in trees]

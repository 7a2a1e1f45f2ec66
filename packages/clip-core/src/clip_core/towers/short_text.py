"""Which short way through a causal text tower is taken: prefix trees, texts without padding, or none.

The ways themselves are in `layers.reading` and `layers.packing`; which position is the feature, the tower says.

Shapes: B texts, S tokens of a padded text.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clip_core.layers.packing import PackedTexts, SortedTexts, pack, sort_texts
from clip_core.layers.reading import PrefixTree, plant

__all__ = ["plain", "readable", "shorten"]

_SIZES = {"cpu": 512}
"""Nodes of a tree by device: on a CPU more fall out of the cache and fewer leave the matrix products small."""
_OTHER_SIZE = 32_768
_SORTED_SIZE = 4096
"""Tokens that go through the tower at once without gradients: enough for speed, and a bound on memory."""
_WORTH = {"cpu": 0.85}
"""Share of the texts' tokens below which a tree of them is faster; its attention copies keys and values."""
_OTHER_WORTH = 0.6
"""As `_WORTH`; from the bytes that a block moves, not measured."""


def plain(tokens: Tensor) -> bool:
    """Whether the ids are those of one batch: no trace, no transform, no tensor of another kind."""
    return (
        type(tokens) is Tensor
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        # Under a transform of other tensors, as of the weights, what is computed from the ids is wrapped like those.
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def readable(tokens: Tensor) -> bool:
    """Whether the ids can be looked at without waiting for a device and without breaking a trace or a transform."""
    return plain(tokens) and tokens.device.type == "cpu"


def shorten(
    tokens: Tensor, read: Tensor, device: torch.device, *, undivided: bool = False
) -> list[PrefixTree] | list[SortedTexts] | list[PackedTexts]:
    """The texts up to the position of each that is its feature, in parts on `device`, as is fastest there.

    With gradients there is one part whatever the ids are: processes that share the weights must meet in the same
    number of calls.

    Args:
        tokens: (B, S) ids that are `readable`, B at least 1.
        read: (B,) the position of each row that is its feature.
        device: of the weights.
        undivided: one part also without gradients.
    """
    kind, whole = device.type, undivided or torch.is_grad_enabled()
    last = read.long().numpy()
    size = tokens.numel() if whole else _SIZES.get(kind, _OTHER_SIZE)
    trees = plant(tokens.long().numpy(), last, size)
    if sum(len(tree.tokens) for tree in trees) <= _WORTH.get(kind, _OTHER_WORTH) * int(last.sum() + len(last)):
        return trees if kind == "cpu" else [tree.to(device) for tree in trees]
    if kind == "cpu":
        return sort_texts(tokens, last + 1, None if whole else _SORTED_SIZE)
    return [pack(tokens.to(device, non_blocking=True), last + 1)]

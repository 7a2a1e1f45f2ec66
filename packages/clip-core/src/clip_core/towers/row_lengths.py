"""Encoding texts without the padding behind them, for towers whose features padding cannot change.

Shapes: B batch, S sequence, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clip_core.towers.short_text import readable

__all__ = ["encode_unpadded"]

_TOKENS = 2048
"""Tokens that are encoded at once: enough for large matrix products, few enough that rows are of about one length."""


def encode_unpadded(encode: Callable[[Tensor], Tensor], tokens: Tensor, pad_id: int) -> Tensor:
    """`encode` of the rows of `tokens` with no more padding than they need, in their order.

    Without gradients the rows are sorted by length and go in several batches. With gradients all go at once, cut to
    the longest: processes that share the weights must meet in the same number of calls. Ids on another device than
    the CPU, which would have to be waited for, and those of a trace are encoded as they are.

    Args:
        encode: (B, S) ids -> (B, D), for any S, indifferent to columns of padding at the end.
        tokens: (B, S) ids.
        pad_id: the id of padding.
    """
    if not readable(tokens) or not tokens.numel():
        return encode(tokens)
    places = torch.arange(1, tokens.shape[1] + 1)
    lengths = (places * (tokens != pad_id)).amax(dim=1).clamp(min=1)  # (B,)
    if torch.is_grad_enabled():
        return encode(tokens[:, : int(lengths.max())])
    sizes, order = lengths.sort()
    features: list[Tensor] = []
    end = len(order)
    while end:  # longest first
        longest = int(sizes[end - 1])
        start = max(0, end - max(1, _TOKENS // longest))
        features.insert(0, encode(tokens[order[start:end], :longest]))
        end = start
    return torch.cat(features)[order.argsort()]

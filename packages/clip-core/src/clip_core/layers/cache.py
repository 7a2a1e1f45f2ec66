"""Causal blocks one step at a time: the keys and values of earlier positions are kept instead of computed again.

Shapes: R rows, n positions of this step, L positions so far, W width, H heads, C = W / H channels of a head.
Inference only; the blocks are those of `layers.block`, which know nothing of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.layers.block import ResidualBlock

__all__ = ["KeyValueCache", "continue_block"]


class KeyValueCache:
    """The keys and values that one attention layer has seen, in memory that is allocated once."""

    def __init__(self, rows: int, length: int, block: ResidualBlock) -> None:
        """Room for `length` positions of `rows` rows, in the dtype and on the device of `block`'s weights."""
        weight = block.attn.in_proj_weight
        width = weight.shape[1]
        shape = (rows, block.attn.heads, length, width // block.attn.heads)
        self._keys, self._values = weight.new_empty(shape), weight.new_empty(shape)
        self.length = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep (R, H, n, C) of this step; returns all so far, (R, H, L, C) each, as views."""
        start, self.length = self.length, self.length + keys.shape[2]
        self._keys[:, :, start : self.length] = keys
        self._values[:, :, start : self.length] = values
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def reorder(self, rows: Tensor) -> None:
        """Row i goes on from what row `rows[i]` has seen; `rows` (R,) int64."""
        self._keys[:, :, : self.length] = self._keys[rows, :, : self.length]
        self._values[:, :, : self.length] = self._values[rows, :, : self.length]


def continue_block(block: ResidualBlock, x: Tensor, cache: KeyValueCache, visible: Tensor | None = None) -> Tensor:
    """What `block` with a causal mask gives at the n positions (R, n, W) that follow those in `cache`.

    `visible` (R, L), bool, says which of all positions so far may be attended to; None is all of them.
    """
    rows, steps, width = x.shape
    attention = block.attn
    packed = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = packed.view(rows, steps, 3, attention.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    keys, values = cache.append(key, value)
    mask = None
    if steps > 1:
        mask = torch.ones(steps, cache.length, dtype=torch.bool, device=x.device).tril(cache.length - steps)
    if visible is not None:
        mask = visible[:, None, None] if mask is None else visible[:, None, None] & mask
    mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    x = x + block.ls_1(attention.out_proj(mixed.transpose(1, 2).reshape(rows, steps, width)))
    out: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return out

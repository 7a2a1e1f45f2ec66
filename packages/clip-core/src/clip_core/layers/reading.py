"""Which positions a block computes, where not all of them are needed: the same numbers from fewer multiplications.

A block computes every position of a padded (B, S, W) batch unless it is handed one of these. In the last block the
query, the output projection and the MLP matter at the position that becomes the feature and nowhere else. In a causal
tower a position depends on what is before it alone, so texts that begin alike share those positions, and what stands
behind the last position that is read need not exist. Nothing is approximated: results differ by rounding.

Shapes: B batch, S sequence, W width, H heads, C = W / H; N nodes of a prefix tree, R its texts, T the longest of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["FirstPosition", "PrefixTree", "Reading", "TreeEnds", "plant"]

Integers = npt.NDArray[np.int64]

_LENGTHS = 8
"""Texts whose lengths differ by less than this may stand in one tree; its attention pads them to the longest."""


class Reading:
    """What a block's attention and its residual stream do instead of computing all positions of (B, S, W)."""

    def attend(self, x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
        """Normed input, packed weight (3W, W) and bias (3W,) -> the mixed values of the positions that are read."""
        raise NotImplementedError

    def take(self, x: Tensor) -> Tensor:
        """The positions of `x` that are read."""
        raise NotImplementedError


class FirstPosition(Reading):
    """The first position of each row, which attends to all: (B, S, W) -> (B, 1, W)."""

    def attend(self, x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
        query, key, value = _split(F.linear(x, weight, bias), 3, heads)
        return F.scaled_dot_product_attention(query[:, :, :1], key, value).transpose(1, 2).flatten(2)

    def take(self, x: Tensor) -> Tensor:
        return x[:, :1]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PrefixTree(Reading):
    """Texts with each of their distinct prefixes once, as a node: (N, W) -> (N, W), causal."""

    rows: Tensor
    """(R,) which texts of the batch these are."""
    tokens: Tensor
    """(N,) the last token of each prefix."""
    positions: Tensor
    """(N,) its position."""
    nodes: Tensor
    """(R, T) the node of each text's position; past its end any node, which nothing reads."""
    first: Tensor
    """(N,) where in (R * T) a node comes first."""
    last: Tensor
    """(R,) the position of each text that is read."""

    def attend(self, x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
        query, key, value = _split(self._spread(F.linear(x, weight, bias)), 3, heads)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, self.first)

    def take(self, x: Tensor) -> Tensor:
        return x

    def to(self, device: torch.device) -> PrefixTree:
        """The same on `device`, copied without waiting for it."""
        fields = dataclasses.fields(self)
        return PrefixTree(**{field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields})

    def _spread(self, x: Tensor) -> Tensor:
        """What the nodes hold, (N, ...), at each position of each text, (R, T, ...)."""
        return x.index_select(0, self.nodes.flatten()).view(*self.nodes.shape, *x.shape[1:])


class TreeEnds(Reading):
    """The position of each text of a tree that is read: (N, W) -> (R, W)."""

    def __init__(self, tree: PrefixTree) -> None:
        self.tree = tree
        self.ends = tree.nodes.gather(1, tree.last[:, None]).flatten()

    def attend(self, x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
        width = x.shape[-1]
        packed = F.linear(x, weight, bias)
        (query,) = _split(self.take(packed[:, :width])[:, None], 1, heads)
        key, value = _split(self.tree._spread(packed[:, width:]), 2, heads)
        seen = torch.arange(key.shape[2], device=x.device) <= self.tree.last[:, None]  # (R, T)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None, None])
        return mixed.flatten(1)

    def take(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.ends)


def plant(tokens: Integers, last: Integers, size: int) -> list[PrefixTree]:
    """Trees of about `size` nodes, or of one text, that hold every row of `tokens` up to its position `last`.

    Args:
        tokens: (B, S) ids.
        last: (B,) the position of each row that is read; no other before it is, and nothing behind it matters.
        size: nodes of a tree at most, unless one text alone has more.
    """
    length = int(last.max()) + 1
    held = np.arange(length) <= last[:, None]
    tokens = np.where(held, tokens[:, :length], -1)  # what is behind the end may not set rows apart
    order = np.lexsort([*(tokens[:, place] for place in reversed(range(length))), last // _LENGTHS])
    tokens, held, last = tokens[order], held[order], last[order]
    # In this order a prefix that an earlier row has, the row just before has too.
    shared = np.zeros_like(held)
    shared[1:] = np.logical_and.accumulate((tokens[1:] == tokens[:-1]) & held[1:], axis=1)
    added = (held & ~shared).sum(axis=1)
    trees = []
    for start, stop in _cut(added, last + 1, size):
        part = slice(start, stop), slice(0, int(last[start:stop].max()) + 1)
        own = held[part] & ~shared[part]
        own[0] = held[part][0]
        first = np.flatnonzero(own)
        nodes = np.zeros(own.shape, dtype=np.int64)
        nodes.flat[first] = np.arange(len(first))
        numbers = {
            "rows": order[start:stop],
            "tokens": tokens[part].flat[first],
            "positions": first % own.shape[1],
            "nodes": np.maximum.accumulate(nodes, axis=0),  # a shared position has the node of the row before
            "first": first,
            "last": last[start:stop],
        }
        trees.append(PrefixTree(**{name: torch.from_numpy(values) for name, values in numbers.items()}))
    return trees


def _cut(added: Integers, lengths: Integers, size: int) -> Sequence[tuple[int, int]]:
    """Runs of rows with at most `size` nodes and, padded, four times as many positions; the first row shares none."""
    starts, nodes, longest = [0], int(lengths[0]), int(lengths[0])
    for row in range(1, len(added)):
        nodes += int(added[row])
        longest = max(longest, int(lengths[row]))
        if nodes > size or longest * (row + 1 - starts[-1]) > 4 * size:
            starts.append(row)
            nodes = longest = int(lengths[row])
    return list(zip(starts, [*starts[1:], len(added)], strict=True))


def _split(packed: Tensor, count: int, heads: int) -> tuple[Tensor, ...]:
    """(B, S, count * W) -> `count` views (B, H, S, C)."""
    batch, length, width = packed.shape
    return packed.view(batch, length, count, heads, width // (count * heads)).permute(2, 0, 3, 1, 4).unbind(0)

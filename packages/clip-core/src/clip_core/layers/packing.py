"""Texts one behind another instead of padded to one length: blocks compute the tokens that are read, and no others.

What a causal tower reads at a position depends on nothing behind it, so leaving that out changes results by rounding
only. Attention alone must know where texts begin. Texts that share a beginning are kept apart here; computing what
they share once is the prefix trees' business, in `reading`.

Shapes: B texts, S tokens of a padded text, T tokens of all texts, W width, H heads, C = W / H, r texts of l tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.kernels import attention, packed_attention
from clip_core.layers.reading import Reading

__all__ = ["PackedEnds", "PackedTexts", "SortedEnds", "SortedTexts", "pack", "sort_texts"]

Integers = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PackedTexts(Reading):
    """Texts in the order of the batch, on any device: (T, W) -> (T, W), causal."""

    tokens: Tensor
    """(T,) ids."""
    positions: Tensor
    """(T,) where in its text each stands."""
    starts: Tensor
    """(B + 1,) int32, where each text begins, and T."""
    longest: int
    """Tokens of the longest text."""
    ends: Tensor
    """(B,) int64, which of the T tokens is the feature of each text."""

    def attend(self, x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
        packed = F.linear(x, weight, bias).view(len(x), 3, heads, x.shape[-1] // heads)
        return packed_attention(packed, self.starts, self.longest, causal=True).flatten(1)

    def take(self, x: Tensor) -> Tensor:
        return x


class PackedEnds(Reading):
    """The token of each text that is its feature: (T, W) -> (B, W)."""

    def __init__(self, texts: PackedTexts) -> None:
        self.texts = texts

    def attend(self, x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
        # One query per text would need a padded batch of keys and values, which is more to move than all queries are.
        return self.take(self.texts.attend(x, weight, bias, heads))

    def take(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.texts.ends)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SortedTexts(Reading):
    """Texts sorted by length, each ending with the token that is its feature: (T, W) -> (T, W), causal.

    Texts of one length stand side by side, so they are a batch for attention as they stand: nothing is copied to pad
    it. That costs one call per length, which is nothing on a CPU and would be much on a GPU.
    """

    rows: Tensor
    """(R,) which texts of the batch these are."""
    tokens: Tensor
    """(T,) ids."""
    positions: Tensor
    """(T,) where in its text each stands."""
    runs: tuple[tuple[int, int], ...]
    """(r, l): how many texts of which length stand side by side."""
    ends: Tensor
    """(R,) the last token of each text."""

    def attend(self, x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
        parts = self._parts(F.linear(x, weight, bias), heads)
        return torch.cat([attention(part, causal=True).flatten(2).flatten(0, 1) for part in parts])

    def take(self, x: Tensor) -> Tensor:
        return x

    def _parts(self, packed: Tensor, heads: int) -> Iterator[Tensor]:
        """(T, 3W) -> the texts of each length, (r, l, 3, H, C)."""
        channels = packed.shape[-1] // (3 * heads)
        parts = packed.split_with_sizes([count * length for count, length in self.runs])
        for (count, length), part in zip(self.runs, parts, strict=True):
            yield part.view(count, length, 3, heads, channels)


class SortedEnds(Reading):
    """The last token of each of the sorted texts: (T, W) -> (R, W)."""

    def __init__(self, texts: SortedTexts) -> None:
        self.texts = texts

    def attend(self, x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
        mixed = []
        for part in self.texts._parts(F.linear(x, weight, bias), heads):
            query, key, value = part.permute(2, 0, 3, 1, 4).unbind(0)  # (r, H, l, C)
            mixed.append(F.scaled_dot_product_attention(query[:, :, -1:], key, value).flatten(1))
        return torch.cat(mixed)

    def take(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.texts.ends)


def pack(tokens: Tensor, lengths: Integers, read: Tensor | None = None) -> PackedTexts:
    """The first `lengths` tokens of each row, on the device of `tokens`, which nothing waits for.

    Args:
        tokens: (B, S) ids, B at least 1.
        lengths: (B,) tokens of each row, 1 to S, on the host.
        read: (B,) the position of each row that is its feature, on the device; None is the last of its tokens.
            One that lies behind them is moved there: who passes it answers for that.
    """
    starts = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=starts[1:])
    host = torch.from_numpy(starts)
    if tokens.is_cuda:
        host = host.pin_memory()  # from other memory a copy waits
    device_starts = host.to(tokens.device, non_blocking=True)
    first, counts, total = device_starts[:-1], device_starts.diff(), int(starts[-1])
    row = torch.repeat_interleave(counts, output_size=total)  # (T,); without the size it would ask the device for it
    positions = torch.arange(total, device=tokens.device, dtype=torch.int32) - first.index_select(0, row)
    last = counts - 1 if read is None else torch.minimum(read, counts - 1)
    return PackedTexts(
        tokens=tokens.flatten().index_select(0, row.long() * tokens.shape[1] + positions),
        positions=positions,
        starts=device_starts,
        longest=int(lengths.max()),
        ends=(first + last).long(),
    )


def sort_texts(tokens: Tensor, lengths: Integers, size: int | None = None) -> list[SortedTexts]:
    """The first `lengths` tokens of each row, sorted by length, in parts of about `size` tokens or in one.

    Args:
        tokens: (B, S) ids on the CPU, B at least 1.
        lengths: (B,) tokens of each row, 1 to S; the last of them is its feature.
        size: tokens of a part at most, unless one text alone has more; None is one part.
    """
    order = np.argsort(lengths, kind="stable")
    lengths = lengths[order]
    ends = lengths.cumsum()
    cuts = [0]
    while size is not None:
        before = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
        cut = max(cuts[-1] + 1, int(np.searchsorted(ends, before + size, side="right")))
        if cut >= len(order):
            break
        cuts.append(cut)
    rows = np.repeat(order, lengths)
    positions = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    ids = tokens.flatten().index_select(0, torch.from_numpy(rows * tokens.shape[1] + positions))
    parts = []
    for start, stop in zip(cuts, [*cuts[1:], len(order)], strict=True):
        before = int(ends[start - 1]) if start else 0
        part = slice(before, int(ends[stop - 1]))
        values, counts = np.unique(lengths[start:stop], return_counts=True)
        parts.append(
            SortedTexts(
                rows=torch.from_numpy(order[start:stop]),
                tokens=ids[part],
                positions=torch.from_numpy(positions[part]),
                runs=tuple(zip(counts.tolist(), values.tolist(), strict=True)),
                ends=torch.from_numpy(ends[start:stop] - 1 - before),
            )
        )
    return parts

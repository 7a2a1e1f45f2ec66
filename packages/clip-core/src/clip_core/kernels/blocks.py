"""The contrastive losses tile by tile in plain torch: memory linear in the batch, on every device.

Shapes: b rows (images), B columns (texts), D features. Row i and column `offset + i` are a pair; with b = B and offset
0 this is one batch, with b < B it is one process's share of a larger one. Features are of one dtype, float32 or
float64, and the arithmetic is done in it; scalars are tensors without dimensions and are never read on the host.

CLIP's logits are kept relative to the one of the pair: of the row's for statistics of rows, of the column's for those
of columns. This costs an addition, and takes away the cancellation that a loss near 0 and the gradient of the scale
would suffer. Maxima are true ones; a constant in their place underflows for features that are far apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Gradients",
    "Statistics",
    "contrastive_gradients",
    "contrastive_statistics",
    "log_sum_exp",
    "pair_cosines",
    "sigmoid_loss",
]

_DIAGONAL = 64
_LOG2_E = 1.4426950408889634
TILE = 768
"""Rows and columns of logits at a time on a CPU; 4 MiB in float32, which a core's cache holds while they are worked on.
"""
_TILE_ELSEWHERE = 4096
"""On a GPU, which is idle between small products; 64 MiB, and a gradient takes five of these at a time."""


class Statistics(NamedTuple):
    """Of the logits of each row or column, relative to its pair's: the largest (at least 0), and the sum of all others.

    `rest` is the sum of exp(logit - maximum) without the pair's own. `log_sum_exp` of both is the cross-entropy.
    """

    maximum: Tensor
    rest: Tensor

    def merged(self, other: Statistics) -> Statistics:
        """Of the terms of both together."""
        maximum = torch.maximum(self.maximum, other.maximum)
        rest = self.rest * (self.maximum - maximum).exp() + other.rest * (other.maximum - maximum).exp()
        return Statistics(maximum, rest)


class Gradients(NamedTuple):
    """Of a loss that is summed, not averaged, over its terms; what was not asked for is empty."""

    rows: Tensor
    """(b, D)"""
    columns: Tensor
    """(B, D), the share of these rows."""
    scale: Tensor
    """Scalar, float64."""
    bias: Tensor
    """Scalar, float64."""


def log_sum_exp(statistics: Statistics, dtype: torch.dtype | None = None) -> Tensor:
    """log(exp(0) + the others), to full relative accuracy where it is almost 0 too.

    Args:
        statistics: of rows or columns.
        dtype: of the result, by default that of the statistics. `contrastive_gradients` makes use of float64: where a
            maximum is large, the float32 beside it has no digits left for the sum.
    """
    maximum, rest = (value.to(dtype or value.dtype) for value in statistics)
    return maximum + torch.log1p(rest + torch.expm1(-maximum))


def pair_cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """(b,): the product of each row with the column of the same index.

    On a CPU by small matrix products, whose sums run in the order of the tiles': a column that equals the pair's then
    has the pair's logit to the bit, as it has in a matrix of all logits.
    """
    if rows.device.type != "cpu" or not len(rows):
        products: Tensor = torch.linalg.vecdot(rows, columns)
        return products
    side = min(_DIAGONAL, len(rows))
    whole = len(rows) // side * side
    found = rows.new_empty(len(rows))
    # The last rows come with some of those before them: a product of few rows would be summed in another order.
    for here in (slice(0, whole), slice(len(rows) - side, None)):
        x, y = (features[here].reshape(-1, side, features.shape[1]) for features in (rows, columns))
        found[here] = torch.bmm(x, y.mT).diagonal(dim1=1, dim2=2).flatten()
    return found


def contrastive_statistics(
    rows: Tensor, columns: Tensor, own: Tensor, scale: Tensor, offset: int = 0
) -> tuple[Statistics, Statistics]:
    """Statistics of each row over all columns, and of each column over these rows.

    Args:
        rows: (b, D).
        columns: (B, D).
        own: (B,), the cosine of each column with its pair, whichever process holds that.
        scale: scalar.
        offset: the column that is the pair of the first row.
    """
    of_pairs = own.double() * scale.double()
    pair_of_row = of_pairs[offset : offset + len(rows)]
    of_rows, of_columns = (
        (own_logit.to(rows.dtype, copy=True), rows.new_zeros(len(own_logit))) for own_logit in (pair_of_row, of_pairs)
    )
    for tile in _tiles(rows, columns, offset):
        logits = tile.cosines.mul_(scale)
        tile.pairs(logits).fill_(-torch.inf)
        found = (of_rows, tile.rows, 1, tile.spare), (of_columns, tile.columns, 0, logits)
        largest = logits.amax(1), logits.amax(0)
        for ((maximum, rest), at, dim, room), here in zip(found, largest, strict=True):
            both = torch.maximum(maximum[at], here)
            terms = _exp(torch.sub(logits, both.unsqueeze(dim), out=room))
            rest[at] = rest[at] * (maximum[at] - both).exp() + terms.sum(dim)
            maximum[at] = both
    return _relative(*of_rows, pair_of_row), _relative(*of_columns, of_pairs)


def contrastive_gradients(
    rows: Tensor,
    columns: Tensor,
    own: Tensor,
    scale: Tensor,
    row_loss: Tensor,
    column_loss: Tensor,
    offset: int = 0,
    *,
    for_rows: bool = True,
    for_columns: bool = True,
) -> Gradients:
    """Gradients of sum(row_loss) + sum(column_loss) with respect to these rows, to the columns and to the scale.

    Args:
        rows, columns, own, scale, offset: as for `contrastive_statistics`.
        row_loss: (b,), the cross-entropy of each row.
        column_loss: (B,), that of each column, over the rows of every process.
        for_rows, for_columns: False leaves that gradient out, and a matrix product with it.
    """
    d_rows = rows.new_zeros(rows.shape if for_rows else 0)
    d_columns = columns.new_zeros(columns.shape if for_columns else 0)
    d_scale = torch.zeros((), dtype=torch.float64, device=rows.device)
    of_pairs, mine = own.double() * scale.double(), slice(offset, offset + len(rows))
    row_high, row_low = _split(of_pairs[mine] + row_loss, rows.dtype)
    column_high, column_low = _split(of_pairs + column_loss, rows.dtype)
    # The probability of the pair less 1, of both directions, without the cancellation.
    pair_weights = (torch.expm1(-row_loss) + torch.expm1(-column_loss[mine])).to(rows.dtype)
    for tile in _tiles(rows, columns, offset, buffers=4):
        r, c = tile.rows, tile.columns
        logits = torch.mul(tile.cosines, scale, out=tile.spare)
        # Probabilities of the columns for each row, and then of the rows for each column.
        weights = _exp(torch.sub(logits, row_high[r, None], out=tile.more[0]).sub_(row_low[r, None]))
        tile.pairs(weights).zero_()
        d_scale += _inner(weights, torch.sub(tile.cosines, own[mine][r, None], out=tile.more[1]))
        of_columns = _exp(logits.sub_(column_high[c]).sub_(column_low[c]))
        tile.pairs(of_columns).zero_()
        d_scale += _inner(of_columns, tile.cosines.sub_(own[c]))
        weights += of_columns
        tile.pairs(weights).copy_(tile.of_pairs(pair_weights))
        if for_rows:
            d_rows[r].addmm_(weights, columns[c])
        if for_columns:
            d_columns[c].addmm_(weights.T, rows[r])
    return Gradients(d_rows.mul_(scale), d_columns.mul_(scale), d_scale, d_scale.new_zeros(()))


def sigmoid_loss(
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    bias: Tensor,
    offset: int = 0,
    *,
    gradients: bool = True,
    for_rows: bool = True,
    for_columns: bool = True,
) -> tuple[Tensor, Gradients]:
    """The sum over all b * B pairs of -log sigmoid(+-logit), float64, with its gradients in the same pass.

    Args:
        rows, columns, scale, offset: as for `contrastive_statistics`.
        bias: scalar, added to every logit.
        gradients: False computes the loss alone and leaves all gradients empty.
        for_rows, for_columns: False leaves that gradient out, and a matrix product with it.
    """
    loss = torch.zeros((), dtype=torch.float64, device=rows.device)
    d_scale, d_bias = torch.zeros_like(loss), torch.zeros_like(loss)
    d_rows = rows.new_zeros(rows.shape if gradients and for_rows else 0)
    d_columns = columns.new_zeros(columns.shape if gradients and for_columns else 0)
    for tile in _tiles(rows, columns, offset):
        r, c = tile.rows, tile.columns
        logits = torch.mul(tile.cosines, scale, out=tile.spare).add_(bias)
        tile.pairs(logits).neg_()  # so that every element's term is -log sigmoid(-logit) = log(1 + exp(logit))
        loss += _total(logits.clamp(min=0)) + _log_of_product(_exp(logits.abs().neg_()))
        if not gradients:
            continue
        weights = logits.sigmoid_()
        tile.pairs(weights).neg_()
        d_scale += _inner(weights, tile.cosines)
        d_bias += _total(weights)
        if for_rows:
            d_rows[r].addmm_(weights, columns[c])
        if for_columns:
            d_columns[c].addmm_(weights.T, rows[r])
    return loss, Gradients(d_rows.mul_(scale), d_columns.mul_(scale), d_scale, d_bias)


class _Tile(NamedTuple):
    rows: slice
    columns: slice
    cosines: Tensor
    """(rows, columns) of this tile; the caller may overwrite it, as the next tile does."""
    spare: Tensor
    """Room of the same shape."""
    more: list[Tensor]
    """More of it."""
    first: int
    last: int
    """The rows `first` to `last` - 1 of all have their pair in this tile."""
    offset: int

    def pairs(self, values: Tensor) -> Tensor:
        """The view of a tile's elements that belong to pairs; often empty."""
        top, left = self.first - self.rows.start, self.first + self.offset - self.columns.start
        count = self.last - self.first
        return values[top : top + count, left : left + count].diagonal() if count > 0 else values[:0, :0].diagonal()

    def of_pairs(self, values: Tensor) -> Tensor:
        """The elements of a vector over rows that belong to this tile's pairs."""
        return values[self.first : max(self.first, self.last)]


def _tiles(rows: Tensor, columns: Tensor, offset: int, buffers: int = 2) -> Iterator[_Tile]:
    side = TILE if rows.device.type == "cpu" else _TILE_ELSEWHERE
    room = rows.new_empty(buffers, min(side, len(rows)) * min(side, len(columns)))
    for top in range(0, len(rows), side):
        bottom = min(top + side, len(rows))
        for left in range(0, len(columns), side):
            right = min(left + side, len(columns))
            first, last = max(top, left - offset), min(bottom, right - offset)
            shape = bottom - top, right - left
            cosines, spare, *more = (buffer[: shape[0] * shape[1]].view(shape) for buffer in room)
            torch.mm(rows[top:bottom], columns[left:right].T, out=cosines)
            yield _Tile(slice(top, bottom), slice(left, right), cosines, spare, more, first, last, offset)


def _exp(values: Tensor) -> Tensor:
    """The exponential, in place. On a CPU exp2 takes a third of the time of exp, and a fortieth where both are 0."""
    return values.mul_(_LOG2_E).exp2_()


def _split(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`values` as the sum of two of `dtype`, the first rounded and the second what that took away."""
    high = values.to(dtype)
    return high, (values - high).to(dtype)


def _relative(maximum: Tensor, rest: Tensor, own: Tensor) -> Statistics:
    # What rounding takes from the difference is put back into the sum, so that both together are exact.
    difference = maximum - own
    rounded = difference.to(rest.dtype).clamp_(min=0)
    return Statistics(rounded, rest * (difference - rounded).exp().to(rest.dtype))


def _log_of_product(values: Tensor) -> Tensor:
    """The sum of log(1 + value), float64, for values from 0 to 1, which are overwritten: one logarithm for 32 rows."""
    for _ in range(5):  # Up to 63 values come together; 127 could leave the range of float32.
        half = len(values) // 2
        if not half:
            break
        upper, lower, odd = values[:half], values[half : 2 * half], values[2 * half :]
        upper.addcmul_(upper, lower).add_(lower)  # (1 + a)(1 + b) - 1, to full relative accuracy for small ones too
        upper[: len(odd)].addcmul_(upper[: len(odd)], odd).add_(odd)
        values = upper
    return _total(values.log1p_())


def _total(values: Tensor) -> Tensor:
    # Row by row in the dtype of the tile, then in double: as exact as needed, and no copy of the tile.
    sums: Tensor = values.sum(1)
    return sums.sum(dtype=torch.float64)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    products: Tensor = torch.linalg.vecdot(a, b)
    return products.sum(dtype=torch.float64)

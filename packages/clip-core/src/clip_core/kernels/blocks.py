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
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Gradients",
    "Statistics",
    "contrastive_gradients",
    "contrastive_statistics",
    "log_sum_exp",
    "sigmoid_loss",
]

TILE = 1024
"""Rows and columns of logits at a time on a CPU; 4 MiB in float32, which a core's cache holds while they are worked on.
"""
_TILE_ELSEWHERE = 8192
"""On a GPU, which is idle between small products; 256 MiB."""


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


def log_sum_exp(statistics: Statistics) -> Tensor:
    """log(exp(0) + the others), to full relative accuracy where it is almost 0 too."""
    maximum, rest = statistics
    return maximum + torch.log1p(rest + torch.expm1(-maximum))


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
    of_rows = Statistics(rows.new_zeros(len(rows)), rows.new_zeros(len(rows)))
    of_columns = Statistics(rows.new_zeros(len(columns)), rows.new_zeros(len(columns)))
    for tile in _tiles(rows, columns, offset):
        r, c = tile.rows, tile.columns
        by_row = (tile.cosines - own[offset:][r, None]).mul_(scale)
        by_column = tile.cosines.sub_(own[c]).mul_(scale)
        for statistics, at, logits, dim in ((of_rows, r, by_row, 1), (of_columns, c, by_column, 0)):
            tile.pairs(logits).fill_(-torch.inf)
            maximum = logits.amax(dim).clamp_(min=0)
            rest = logits.sub_(maximum.unsqueeze(dim)).exp_().sum(dim)
            new = Statistics(statistics.maximum[at], statistics.rest[at]).merged(Statistics(maximum, rest))
            statistics.maximum[at], statistics.rest[at] = new
    return of_rows, of_columns


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
    for tile in _tiles(rows, columns, offset):
        r, c = tile.rows, tile.columns
        relative = tile.cosines - own[offset:][r, None]
        tile.pairs(relative).zero_()
        weights = (relative * scale).sub_(row_loss[r, None]).exp_()  # probabilities of the columns for each row
        d_scale += _inner(weights, relative)
        relative = tile.cosines.sub_(own[c])
        tile.pairs(relative).zero_()
        of_columns = (relative * scale).sub_(column_loss[c]).exp_()
        d_scale += _inner(of_columns, relative)
        weights += of_columns
        # The probability of the pair less 1, twice, without the cancellation.
        tile.pairs(weights).copy_(
            torch.expm1(-tile.of_pairs(row_loss)) + torch.expm1(-tile.of_pairs(column_loss, offset))
        )
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
        logits = (tile.cosines * scale).add_(bias)
        tile.pairs(logits).neg_()  # so that every element's term is -log sigmoid(-logit)
        loss += F.softplus(logits).sum(dtype=torch.float64)
        if not gradients:
            continue
        weights = logits.sigmoid_()
        tile.pairs(weights).neg_()
        d_scale += _inner(weights, tile.cosines)
        d_bias += weights.sum(dtype=torch.float64)
        if for_rows:
            d_rows[r].addmm_(weights, columns[c])
        if for_columns:
            d_columns[c].addmm_(weights.T, rows[r])
    return loss, Gradients(d_rows.mul_(scale), d_columns.mul_(scale), d_scale, d_bias)


class _Tile(NamedTuple):
    rows: slice
    columns: slice
    cosines: Tensor
    """(rows, columns) of this tile; the caller may overwrite it."""
    first: int
    last: int
    """The rows `first` to `last` - 1 of all have their pair in this tile."""
    offset: int

    def pairs(self, values: Tensor) -> Tensor:
        """The view of a tile's elements that belong to pairs; often empty."""
        top, left = self.first - self.rows.start, self.first + self.offset - self.columns.start
        count = self.last - self.first
        return values[top : top + count, left : left + count].diagonal() if count > 0 else values[:0, :0].diagonal()

    def of_pairs(self, values: Tensor, offset: int = 0) -> Tensor:
        """The elements of a vector over rows, or with the offset over columns, that belong to this tile's pairs."""
        return values[self.first + offset : max(self.first, self.last) + offset]


def _tiles(rows: Tensor, columns: Tensor, offset: int) -> Iterator[_Tile]:
    side = TILE if rows.device.type == "cpu" else _TILE_ELSEWHERE
    for top in range(0, len(rows), side):
        bottom = min(top + side, len(rows))
        for left in range(0, len(columns), side):
            right = min(left + side, len(columns))
            first, last = max(top, left - offset), min(bottom, right - offset)
            cosines = rows[top:bottom] @ columns[left:right].T
            yield _Tile(slice(top, bottom), slice(left, right), cosines, first, last, offset)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    # Row by row in the dtype of the tile, then in double: as exact as needed, and no copy of the tile.
    products: Tensor = torch.linalg.vecdot(a, b)
    return products.sum(dtype=torch.float64)

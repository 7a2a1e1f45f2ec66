"""Triton's programs for CLIP's loss: the same functions, with the same results, as `blocks` has in plain torch.

Shapes: b rows, B columns, D features; row i and column `offset + i` are a pair.

The forward pass computes each tile of cosines once, for its rows and its columns. The backward pass computes them a
second time and writes a slab of weights, the gradient with respect to the cosines but for the scale; two matrix
products consume it (`products`). So 4 products of b * B * D in all, no atomics, and the same bits every time.

As in `blocks`, logits are relative to the one of the pair, and the pair's own term is left out of all sums. For a
negative scale the sign is turned in the cosines.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from clip_core.kernels.blocks import Gradients, Statistics
from clip_core.kernels.programs.launching import launch
from clip_core.kernels.programs.products import SlabProducts
from clip_core.kernels.programs.tiles import (
    aligned,
    block_of_cosines,
    panel_rows,
    parts_of_columns,
    pieces,
    slabs,
    tiles_on,
)

__all__ = ["contrastive_gradients", "contrastive_statistics"]

_MERGED_AT_ONCE = 64


def contrastive_statistics(
    rows: Tensor, columns: Tensor, own: Tensor, scale: Tensor, offset: int = 0
) -> tuple[Statistics, Statistics]:
    """Statistics of each row over all columns, and of each column over these rows; all float32.

    Args:
        rows: (b, D), bfloat16, float16 or float32: the dtype that is multiplied; sums are float32.
        columns: (B, D), of the same dtype.
        own: (B,), float32, the cosine of each column with its pair.
        scale: scalar, float32; never read on the host.
        offset: the column that is the pair of the first row.
    """
    rows, columns, own = aligned(rows), aligned(columns), own.contiguous()
    (b, depth), wide = rows.shape, len(columns)
    tile = tiles_on(rows).statistics
    if b == 0 or wide == 0:
        return Statistics(own.new_zeros(b), own.new_zeros(b)), Statistics(own.new_zeros(wide), own.new_zeros(wide))
    of_rows = Statistics(own.new_empty(b), own.new_empty(b))
    of_columns = Statistics(own.new_empty(wide), own.new_empty(wide))
    panel = panel_rows(tile)
    groups, each = parts_of_columns(wide, tile)
    row_parts = own.new_empty(2, groups, min(b, panel))
    column_parts = own.new_empty(2, triton.cdiv(min(b, panel), tile.rows), wide)
    for top in range(0, b, panel):
        bottom = min(top + panel, b)
        blocks_down = triton.cdiv(bottom - top, tile.rows)
        launch(
            tile_statistics,
            (blocks_down * groups,),
            rows,
            columns,
            own,
            scale,
            row_parts[0],
            row_parts[1],
            column_parts[0],
            column_parts[1],
            top,
            b,
            wide,
            offset,
            blocks_down,
            row_parts.shape[2],
            rows.stride(0),
            columns.stride(0),
            depth,
            EACH=each,
            **tile.options(rows),
        )
        _merge(row_parts, Statistics(of_rows.maximum[top:bottom], of_rows.rest[top:bottom]), add=False)
        _merge(column_parts[:, :blocks_down], of_columns, add=top > 0)
    return of_rows, of_columns


def _merge(parts: Tensor, into: Statistics, *, add: bool) -> None:
    """Merge `parts` (2, n, at least the length of `into`) and, with `add`, what `into` holds already."""
    count = len(into.maximum)
    launch(
        merge_statistics,
        (triton.cdiv(count, _MERGED_AT_ONCE),),
        parts[0],
        parts[1],
        into.maximum,
        into.rest,
        parts.shape[1],
        count,
        parts.stride(1),
        ADD=add,
        BP=triton.next_power_of_2(parts.shape[1]),
        BC=_MERGED_AT_ONCE,
        num_warps=4,
    )


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
    """Gradients of sum(row_loss) + sum(column_loss); those of rows and columns in float32.

    Args:
        rows, columns, own, scale, offset: as for `contrastive_statistics`.
        row_loss: (b,), float32 or better float64, the cross-entropy of each row.
        column_loss: (B,), of the same, that of each column, over the rows of every process.
        for_rows, for_columns: False leaves that gradient out, and a matrix product with it.
    """
    rows, columns, own = aligned(rows), aligned(columns), own.contiguous()
    (b, depth), wide = rows.shape, len(columns)
    tile = tiles_on(rows).weights
    d_scale = torch.zeros((), dtype=torch.float64, device=rows.device)
    # The probability of the pair less 1, twice, without the cancellation.
    pairs = (torch.expm1(-row_loss) + torch.expm1(-column_loss[offset : offset + b])).float()
    row_high, row_low = _split(row_loss)
    column_high, column_low = _split(column_loss)
    products = SlabProducts(rows, columns, tile, for_rows=for_rows, for_columns=for_columns)
    for slab in slabs(b, wide, tile, products.weights.element_size()):
        blocks_down, blocks_across = slab.blocks(tile)
        parts = own.new_empty(blocks_down * blocks_across)
        launch(
            tile_weights,
            (blocks_down * blocks_across,),
            rows,
            columns,
            own,
            scale,
            row_high,
            row_low,
            column_high,
            column_low,
            pairs,
            products.weights,
            parts,
            slab.top,
            slab.left,
            b,
            wide,
            offset,
            blocks_down,
            rows.stride(0),
            columns.stride(0),
            products.weights.stride(0),
            depth,
            FACTOR=products.factor,
            WEIGHTS=for_rows or for_columns,
            **tile.options(rows),
        )
        d_scale += parts.sum(dtype=torch.float64)
        products.add(slab)
    d_rows, d_columns = products.finished(scale)
    return Gradients(d_rows, d_columns, d_scale, torch.zeros_like(d_scale))


def _split(values: Tensor) -> tuple[Tensor, Tensor]:
    """Two of float32 whose sum is `values`."""
    high = values.float().contiguous()
    return high, (values.double() - high).float()


@triton.jit
def _sign_and_size(scale):
    """Of the scale. A size of 0 would make 0 * -inf, which is no number, of what is left out."""
    value = tl.load(scale).to(tl.float32)
    sign = tl.where(value < 0, -1.0, 1.0)
    size = tl.abs(value)
    return sign, tl.where(size < 1e-30, 1e-30, size)


@triton.jit
def _exp_of_difference(relative, size, shift):
    """exp(relative * size - shift). Base 2 comes after the difference, or large logits would be rounded once more."""
    return tl.exp2((relative * size - shift) * 1.4426950408889634)


@triton.jit
def _probability(relative, size, high, low):
    """exp(relative * size - loss), where the loss is `high` + ln(2) * `low`: large losses need more than 24 bits."""
    return tl.exp2((relative * size - high) * 1.4426950408889634 - low)


@triton.jit
def _finite_or_nan(own):
    """A pair's cosine of infinity as no number: relative to it everything else would be nothing, and the loss 0."""
    return own + (own - own)


@triton.jit
def _is_border(top, left, b, wide, offset, BM: tl.constexpr, BN: tl.constexpr):
    """Whether a tile has pairs, or elements behind the last row or column."""
    has_pairs = (top + offset < left + BN) & (left < top + offset + BM)
    return has_pairs | (top + BM > b) | (left + BN > wide)


@triton.jit
def _counts(row, column, b, wide, offset):
    """Which elements are of two that are no pair."""
    return (row < b)[:, None] & (column < wide)[None, :] & (row[:, None] + offset != column[None, :])


@triton.jit(do_not_specialize=["top", "b", "wide", "offset", "blocks_down", "part_stride"])
def tile_statistics(
    rows,
    columns,
    own,
    scale,
    row_maxima,
    row_rests,
    column_maxima,
    column_rests,
    top,
    b,
    wide,
    offset,
    blocks_down,
    part_stride,
    row_stride,
    column_stride,
    depth,
    EACH: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    PIECES: tl.constexpr,
):
    """One block of rows by EACH blocks of columns: partial statistics of the rows over all of them, and of each column.

    Neighbours in the order of programs share their columns; a panel's rows are shared by all.
    """
    program = tl.program_id(0)
    block, group = program % blocks_down, program // blocks_down
    sign, size = _sign_and_size(scale)
    first = top + block * BM
    row = first + tl.arange(0, BM)
    # Rows behind the last are the last one again, and are left out of the sums.
    row_index = tl.minimum(row, b - 1).to(tl.int64)
    row_own = _finite_or_nan(tl.load(own + row_index + offset)) * sign
    maximum = tl.zeros((BM,), dtype=tl.float32)
    rest = tl.zeros((BM,), dtype=tl.float32)
    for step in range(EACH):
        left = (group * EACH + step) * BN
        column = left + tl.arange(0, BN)
        column_index = tl.minimum(column, wide - 1).to(tl.int64)
        cosines = block_of_cosines(
            rows,
            columns,
            row_index,
            column_index,
            row_stride,
            column_stride,
            depth,
            D,
            BM,
            BN,
            BK,
            PRECISION,
            INTERPRETED,
        )
        border = _is_border(first, left, b, wide, offset, BM, BN)
        parts = pieces(cosines, PIECES)
        for piece in tl.static_range(PIECES):
            column = left + piece * (BN // PIECES) + tl.arange(0, BN // PIECES)
            signed = parts[piece] * sign
            if border:
                signed = tl.where(_counts(row, column, b, wide, offset), signed, float("-inf"))

            relative = signed - row_own[:, None]
            larger = tl.maximum(maximum, tl.max(relative, 1) * size)
            sums = tl.sum(_exp_of_difference(relative, size, larger[:, None]), 1)
            rest = rest * _exp_of_difference(maximum, 1.0, larger) + sums
            maximum = larger

            column_own = _finite_or_nan(tl.load(own + tl.minimum(column, wide - 1))) * sign
            relative = signed - column_own[None, :]
            larger = tl.maximum(tl.max(relative, 0) * size, 0.0)
            sums = tl.sum(_exp_of_difference(relative, size, larger[None, :]), 0)
            column_at = block.to(tl.int64) * wide + column
            tl.store(column_maxima + column_at, larger, mask=column < wide)
            tl.store(column_rests + column_at, sums, mask=column < wide)
    row_at = group.to(tl.int64) * part_stride + row - top
    tl.store(row_maxima + row_at, maximum, mask=row < b)
    tl.store(row_rests + row_at, rest, mask=row < b)


@triton.jit(do_not_specialize=["parts", "count", "part_stride"])
def merge_statistics(
    maxima, rests, maximum, rest, parts, count, part_stride, ADD: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):
    """Merge the partial statistics (parts, count) of BC rows or columns, in an order that is always the same."""
    at = tl.program_id(0) * BC + tl.arange(0, BC)
    part = tl.arange(0, BP)
    there = (part < parts)[:, None] & (at < count)[None, :]
    part_at = part.to(tl.int64)[:, None] * part_stride + at[None, :]
    each = tl.load(maxima + part_at, mask=there, other=0.0)
    largest = tl.max(each, 0)
    if ADD:
        before = tl.load(maximum + at, mask=at < count, other=0.0)
        largest = tl.maximum(largest, before)
    total = tl.load(rests + part_at, mask=there, other=0.0)
    merged = tl.sum(total * _exp_of_difference(each, 1.0, largest[None, :]), 0)
    if ADD:
        older = tl.load(rest + at, mask=at < count, other=0.0)
        merged += older * _exp_of_difference(before, 1.0, largest)
    tl.store(maximum + at, largest, mask=at < count)
    tl.store(rest + at, merged, mask=at < count)


@triton.jit(do_not_specialize=["top", "left", "b", "wide", "offset", "blocks_down"])
def tile_weights(
    rows,
    columns,
    own,
    scale,
    row_high,
    row_low,
    column_high,
    column_low,
    pairs,
    weights,
    parts,
    top,
    left,
    b,
    wide,
    offset,
    blocks_down,
    row_stride,
    column_stride,
    weight_stride,
    depth,
    FACTOR: tl.constexpr,
    WEIGHTS: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    PIECES: tl.constexpr,
):
    """One tile of a slab: the probability of each column for the row and of each row for the column, added up.

    Weights are multiplied by FACTOR. The slab has room for whole tiles, so that nothing is masked when it is written.
    """
    program = tl.program_id(0)
    block, across = program % blocks_down, program // blocks_down
    sign, size = _sign_and_size(scale)
    first = top + block * BM
    start = left + across * BN
    row = first + tl.arange(0, BM)
    column = start + tl.arange(0, BN)
    row_index = tl.minimum(row, b - 1).to(tl.int64)
    column_index = tl.minimum(column, wide - 1).to(tl.int64)
    cosines = block_of_cosines(
        rows, columns, row_index, column_index, row_stride, column_stride, depth, D, BM, BN, BK, PRECISION, INTERPRETED
    )
    row_own = tl.load(own + row_index + offset) * sign
    row_shift = tl.load(row_high + row_index)
    row_rest = tl.load(row_low + row_index) * 1.4426950408889634
    border = _is_border(first, start, b, wide, offset, BM, BN)
    weight_at = weights + (block * BM + tl.arange(0, BM)).to(tl.int64)[:, None] * weight_stride + across * BN
    total = tl.zeros((BM,), dtype=tl.float32)
    parts_of_tile = pieces(cosines, PIECES)
    for piece in tl.static_range(PIECES):
        inside = piece * (BN // PIECES) + tl.arange(0, BN // PIECES)
        column = start + inside
        column_index = tl.minimum(column, wide - 1)
        signed = parts_of_tile[piece] * sign
        by_row = signed - row_own[:, None]
        row_probability = _probability(by_row, size, row_shift[:, None], row_rest[:, None])
        by_column = signed - (tl.load(own + column_index) * sign)[None, :]
        column_shift = tl.load(column_high + column_index)
        column_rest = tl.load(column_low + column_index) * 1.4426950408889634
        column_probability = _probability(by_column, size, column_shift[None, :], column_rest[None, :])
        slope = row_probability * by_row + column_probability * by_column
        weight = row_probability + column_probability
        if border:
            slope = tl.where(_counts(row, column, b, wide, offset), slope, 0.0)
            pair = tl.load(pairs + row_index)[:, None]
            is_pair = row[:, None] + offset == column[None, :]
            slope = tl.where(is_pair, pair * 0.0, slope)  # 0, or no number where the loss is none
            weight = tl.where(is_pair, pair, weight)
        total += tl.sum(slope, 1)
        if WEIGHTS:
            tl.store(weight_at + inside[None, :], (weight * FACTOR).to(weights.dtype.element_ty))
    tl.store(parts + program, tl.sum(total, 0) * sign)

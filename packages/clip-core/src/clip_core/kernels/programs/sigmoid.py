"""Triton's program for SigLIP's loss: the same function, with the same results, as `blocks` has in plain torch.

Shapes: b rows, B columns, D features; row i and column `offset + i` are a pair.

A logit's gradient needs no other logit, so one pass over the tiles gives the loss and, where gradients are wanted, a
slab of weights for two matrix products (`products`): 3 products of b * B * D in all, or 1 for the loss alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from clip_core.kernels.blocks import Gradients
from clip_core.kernels.programs.launching import launch
from clip_core.kernels.programs.products import SlabProducts
from clip_core.kernels.programs.tiles import aligned, block_of_cosines, pieces, slabs, tiles_on

__all__ = ["sigmoid_loss"]


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
        rows: (b, D), bfloat16, float16 or float32: the dtype that is multiplied; gradients are float32.
        columns: (B, D), of the same dtype.
        scale, bias: scalars, float32; never read on the host.
        offset: the column that is the pair of the first row.
        gradients: False computes the loss alone and leaves all gradients empty.
        for_rows, for_columns: False leaves that gradient out, and a matrix product with it.
    """
    rows, columns = aligned(rows), aligned(columns)
    (b, depth), wide = rows.shape, len(columns)
    tile = tiles_on(rows).losses
    for_rows, for_columns = gradients and for_rows, gradients and for_columns
    sums = torch.zeros(3, dtype=torch.float64, device=rows.device)
    products = SlabProducts(rows, columns, tile, for_rows=for_rows, for_columns=for_columns)
    for slab in slabs(b, wide, tile, products.weights.element_size()):
        blocks_down, blocks_across = slab.blocks(tile)
        parts = scale.new_empty(3 if gradients else 1, blocks_down * blocks_across)
        launch(
            tile_losses,
            (blocks_down * blocks_across,),
            rows,
            columns,
            scale,
            bias,
            products.weights,
            parts,
            slab.top,
            slab.left,
            b,
            wide,
            offset,
            blocks_down,
            parts.shape[1],
            rows.stride(0),
            columns.stride(0),
            products.weights.stride(0),
            depth,
            FACTOR=products.factor,
            GRADIENTS=gradients,
            WEIGHTS=for_rows or for_columns,
            **tile.options(rows),
        )
        sums[: len(parts)] += parts.sum(1, dtype=torch.float64)
        products.add(slab)
    d_rows, d_columns = products.finished(scale)
    return sums[0], Gradients(d_rows, d_columns, sums[1], sums[2])


@triton.jit
def _log1p(x):
    """log(1 + x) for 0 <= x <= 1, to 2e-7 of itself however small x is. Triton has one, but for GPUs only.

    x + x^2 q(x), where q is the polynomial of degree 7 with the least largest relative error of the whole.
    """
    q = 0.005364810582250357 * x - 0.030065739527344704
    q = q * x + 0.07920445501804352
    q = q * x - 0.13753795623779297
    q = q * x + 0.19153651595115662
    q = q * x - 0.24857163429260254
    q = q * x + 0.3332132399082184
    q = q * x - 0.49999648332595825
    return x + x * x * q


@triton.jit(do_not_specialize=["top", "left", "b", "wide", "offset", "blocks_down", "part_stride"])
def tile_losses(
    rows,
    columns,
    scale,
    bias,
    weights,
    parts,
    top,
    left,
    b,
    wide,
    offset,
    blocks_down,
    part_stride,
    row_stride,
    column_stride,
    weight_stride,
    depth,
    FACTOR: tl.constexpr,
    GRADIENTS: tl.constexpr,
    WEIGHTS: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    PIECES: tl.constexpr,
):
    """One tile of a slab: the sum of its losses and, with GRADIENTS, those for scale and bias, and the weights.

    A pair's logit is turned around, so that every element's loss is softplus(logit).
    """
    program = tl.program_id(0)
    block, across = program % blocks_down, program // blocks_down
    first = top + block * BM
    start = left + across * BN
    row = first + tl.arange(0, BM)
    column = start + tl.arange(0, BN)
    # Rows and columns behind the last are the last one again, and are left out of the sums.
    row_index = tl.minimum(row, b - 1).to(tl.int64)
    column_index = tl.minimum(column, wide - 1).to(tl.int64)
    cosines = block_of_cosines(
        rows, columns, row_index, column_index, row_stride, column_stride, depth, D, BM, BN, BK, PRECISION, INTERPRETED
    )
    factor, shift = tl.load(scale).to(tl.float32), tl.load(bias).to(tl.float32)
    has_pairs = (first + offset < start + BN) & (start < first + offset + BM)
    ends = (first + BM > b) | (start + BN > wide)
    weight_at = weights + (block * BM + tl.arange(0, BM)).to(tl.int64)[:, None] * weight_stride + across * BN
    loss = tl.zeros((BM,), dtype=tl.float32)
    slope = tl.zeros((BM,), dtype=tl.float32)
    height = tl.zeros((BM,), dtype=tl.float32)
    parts_of_tile = pieces(cosines, PIECES)
    for piece in tl.static_range(PIECES):
        inside = piece * (BN // PIECES) + tl.arange(0, BN // PIECES)
        column = start + inside
        of_piece = parts_of_tile[piece]
        logits = of_piece * factor + shift
        if has_pairs:
            logits = tl.where(row[:, None] + offset == column[None, :], -logits, logits)
        small = tl.exp2(-tl.abs(logits) * 1.4426950408889634)
        log_sum = _log1p(small)
        losses = tl.maximum(logits, 0.0) + log_sum
        if ends:
            losses = tl.where((row < b)[:, None] & (column < wide)[None, :], losses, 0.0)
        loss += tl.sum(losses, 1)
        if GRADIENTS:
            share = tl.exp2(log_sum * -1.4426950408889634)  # 1 / (1 + small), cheaper than the division
            weight = tl.where(logits >= 0, share, small * share)
            if has_pairs:
                weight = tl.where(row[:, None] + offset == column[None, :], -weight, weight)
            if ends:
                weight = tl.where((row < b)[:, None] & (column < wide)[None, :], weight, 0.0)
            slope += tl.sum(weight * of_piece, 1)
            height += tl.sum(weight, 1)
            if WEIGHTS:
                tl.store(weight_at + inside[None, :], (weight * FACTOR).to(weights.dtype.element_ty))
    tl.store(parts + program, tl.sum(loss, 0))
    if GRADIENTS:
        tl.store(parts + part_stride + program, tl.sum(slope, 0))
        tl.store(parts + 2 * part_stride + program, tl.sum(height, 0))

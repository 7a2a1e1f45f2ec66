"""The two matrix products that turn a slab of weights into gradients with respect to the features.

Shapes: weights (rows of the slab, columns of the slab), features (b, D) and (B, D), gradients like them in float32.

Half-precision features are multiplied by weights of the same dtype, with sums in float32, by torch's own product.
float32 features have a program here: torch's product is TensorFloat-32 where a user allowed that for the whole process,
which would cost three digits of the gradient, and no setting is one thread's alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from clip_core.kernels.programs.launching import INTERPRETED, launch
from clip_core.kernels.programs.tiles import Slab, Tile, slabs

__all__ = ["SlabProducts"]

_FLOAT16_FACTOR = 2.0**14
"""Weights are between -2 and 2, and about 1 / B: this keeps them off float16's small numbers, which have few digits."""


class SlabProducts:
    """Gradients of rows and columns, added up slab by slab.

    Attributes:
        weights: a slab's, to be written by a program before `add`.
        factor: what each weight is multiplied by when it is written.
    """

    def __init__(self, rows: Tensor, columns: Tensor, tile: Tile, *, for_rows: bool, for_columns: bool) -> None:
        # The interpreter cuts bfloat16 off instead of rounding.
        dtype = torch.float32 if INTERPRETED and rows.dtype == torch.bfloat16 else rows.dtype
        self.factor = _FLOAT16_FACTOR if dtype == torch.float16 else 1.0
        self._rows, self._columns = rows, columns
        slab = next(slabs(len(rows), len(columns), tile, dtype.itemsize), None)  # the largest
        down, across = slab.blocks(tile) if slab and (for_rows or for_columns) else (0, 0)
        self.weights = rows.new_empty(down * tile.rows, across * tile.columns, dtype=dtype)
        make = torch.empty if slab else torch.zeros
        self._d_rows = make(rows.shape, dtype=torch.float32, device=rows.device) if for_rows else None
        self._d_columns = make(columns.shape, dtype=torch.float32, device=rows.device) if for_columns else None

    def add(self, slab: Slab) -> None:
        """Add the products of the slab that `weights` holds."""
        top, bottom, left, right = slab
        weights = self.weights[: bottom - top, : right - left]
        if self._d_rows is not None:
            _multiply(weights, self._columns[left:right], self._d_rows[top:bottom], add=left > 0)
        if self._d_columns is not None:
            _multiply(weights.T, self._rows[top:bottom], self._d_columns[left:right], add=top > 0)

    def finished(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of rows and columns times `scale`; empty where not asked for."""
        factor = scale.float() / self.factor
        given = (self._d_rows, self._d_columns)
        d_rows, d_columns = (scale.new_empty(0) if found is None else found.mul_(factor) for found in given)
        return d_rows, d_columns


def _multiply(weights: Tensor, features: Tensor, into: Tensor, *, add: bool) -> None:
    if weights.dtype == features.dtype == torch.float32:
        _multiply_float32(weights, features, into, add=add)
    elif weights.device.type != "cuda":
        product = weights.float() @ features.float()
        into.copy_(into + product if add else product)
    elif add:
        torch.addmm(into, weights, features, out_dtype=torch.float32, out=into)
    else:
        torch.mm(weights, features, out_dtype=torch.float32, out=into)


def _multiply_float32(weights: Tensor, features: Tensor, into: Tensor, *, add: bool) -> None:
    (m, k), n = weights.shape, features.shape[1]
    bm, bn, bk = (128, 64, 32)
    launch(
        multiply_float32,
        (triton.cdiv(m, bm), triton.cdiv(n, bn)),
        weights,
        features,
        into,
        m,
        n,
        weights.stride(0),
        weights.stride(1),
        features.stride(0),
        into.stride(0),
        k,
        K=k if INTERPRETED else 0,
        ADD=add,
        BM=bm,
        BN=bn,
        BK=bk,
        num_warps=8,
        num_stages=2,
    )


@triton.jit(do_not_specialize=["m", "n", "count"])
def multiply_float32(
    weights,
    features,
    into,
    m,
    n,
    weight_stride,
    weight_step,
    feature_stride,
    into_stride,
    count,
    K: tl.constexpr,
    ADD: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """(m, count) @ (count, n) in products that are as exact as float32's; added to `into` with ADD.

    `count` changes with the batch, so it is no constant, but in the interpreter, which wants K in its place.
    """
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    row_index = row.to(tl.int64)
    weight_at = weights + row_index[:, None] * weight_stride + k.to(tl.int64)[None, :] * weight_step
    feature_at = features + k.to(tl.int64)[:, None] * feature_stride + column[None, :]
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K if K > 0 else count, BK):
        there = start + k < count
        x = tl.load(weight_at, mask=(row < m)[:, None] & there[None, :], other=0.0)
        y = tl.load(feature_at, mask=there[:, None] & (column < n)[None, :], other=0.0)
        total = tl.dot(x, y, total, input_precision="tf32x3")
        weight_at += BK * weight_step
        feature_at += BK * feature_stride
    at = into + row_index[:, None] * into_stride + column[None, :]
    inside = (row < m)[:, None] & (column < n)[None, :]
    if ADD:
        total += tl.load(at, mask=inside, other=0.0)
    tl.store(at, total, mask=inside)

"""Matrices inside of a program, as tuples of pieces whose sides are powers of two and at least 16.

Triton has no other sides, and matrix instructions no smaller ones: 77 rows of 80 channels are not padded to 128 by 128,
but cut into blocks of 64 and 16 rows, and these into parts of 64 and 16 channels. A matrix of rows by channels is a
tuple by block and in it by part; one of logits or weights a tuple by pair, a block of queries and a block of keys.
Pairs of which nothing is seen, above the diagonal of causal attention, are left out. All loops over pieces are unrolled
by the compiler. Where a matrix lies in memory and which one is multiplied with which is said by the programs.

BLOCKS and PARTS are tuples of (first row or channel, number of them), PAIRS of (block of queries, block of keys).

Shapes: W channels of a part.
"""

# Tuples grow where the compiler unrolls a loop, which types cannot say.
# mypy: disable-error-code="assignment, index, misc"

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["compare", "fill", "mix", "read", "rounded", "softmax", "softmax_backward"]

_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def read(
    start,
    length,
    stride,
    BLOCKS: tl.constexpr,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """By block and in it by part, (rows, W): zeros, not what stands there, for rows and channels that are not ours."""
    pieces = ()
    for block in tl.static_range(len(BLOCKS)):
        rows = BLOCKS[block][0] + tl.arange(0, BLOCKS[block][1])
        for part in tl.static_range(len(PARTS)):
            columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
            ours = (rows < length)[:, None] & (columns < CHANNELS)[None, :]
            piece = tl.load(start + rows[:, None] * stride + columns[None, :], mask=ours, other=0.0)
            if WIDEN:
                piece = piece.to(tl.float32)
            pieces += (piece,)
    return pieces


@triton.jit
def compare(left, right, PARTS: tl.constexpr, PAIRS: tl.constexpr):
    """By pair, the products of each row of `left` with each of `right`."""
    products = ()
    for pair in tl.static_range(len(PAIRS)):
        product = None
        for part in tl.static_range(len(PARTS)):
            one = left[PAIRS[pair][0] * len(PARTS) + part]
            other = right[PAIRS[pair][1] * len(PARTS) + part]
            product = tl.dot(one, tl.trans(other), product, input_precision="ieee")
        products += (product,)
    return products


@triton.jit
def softmax(scores, length, CAUSAL: tl.constexpr, BLOCKS: tl.constexpr, PAIRS: tl.constexpr, SCALE: tl.constexpr):
    """By pair, the softmax of SCALE times the scores over all keys that a query sees."""
    weights = ()
    for block in tl.static_range(len(BLOCKS)):
        rows = BLOCKS[block][0] + tl.arange(0, BLOCKS[block][1])
        logits = ()
        for pair in tl.static_range(len(PAIRS)):
            if PAIRS[pair][0] == block:
                columns = BLOCKS[PAIRS[pair][1]][0] + tl.arange(0, BLOCKS[PAIRS[pair][1]][1])
                if CAUSAL:
                    seen = columns[None, :] <= rows[:, None]
                else:
                    seen = (columns < length)[None, :]
                logits += (tl.where(seen, scores[pair] * (SCALE * _LOG2_E), float("-inf")),)
        top = tl.max(logits[0], 1)
        for other in tl.static_range(1, len(logits)):
            top = tl.maximum(top, tl.max(logits[other], 1))
        powers = ()
        for one in tl.static_range(len(logits)):
            powers += (tl.exp2(logits[one] - top[:, None]),)
        total = tl.sum(powers[0], 1)
        for other in tl.static_range(1, len(powers)):
            total += tl.sum(powers[other], 1)
        for one in tl.static_range(len(powers)):
            weights += (powers[one] * (1 / total)[:, None],)
    return weights


@triton.jit
def softmax_backward(weights, d_weights, BLOCKS: tl.constexpr, PAIRS: tl.constexpr):
    """By pair, the gradient of what the softmax was taken of."""
    d_logits = ()
    for block in tl.static_range(len(BLOCKS)):
        mean = None
        for pair in tl.static_range(len(PAIRS)):
            if PAIRS[pair][0] == block:
                some = tl.sum(weights[pair] * d_weights[pair], 1)
                mean = some if mean is None else mean + some
        for pair in tl.static_range(len(PAIRS)):
            if PAIRS[pair][0] == block:
                d_logits += (weights[pair] * (d_weights[pair] - mean[:, None]),)
    return d_logits


@triton.jit
def rounded(dtype: tl.constexpr, values):
    """`values`, a tuple, each of dtype."""
    pieces = ()
    for one in tl.static_range(len(values)):
        pieces += (values[one].to(dtype),)
    return pieces


@triton.jit
def mix(
    start,
    length,
    stride,
    weights,
    values,
    FACTOR: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCKS: tl.constexpr,
    PARTS: tl.constexpr,
    PAIRS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write FACTOR times the matrix whose pairs are `weights`, or its transpose, times `values`."""
    for block in tl.static_range(len(BLOCKS)):
        rows = BLOCKS[block][0] + tl.arange(0, BLOCKS[block][1])
        for part in tl.static_range(len(PARTS)):
            columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
            mixed = None
            for pair in tl.static_range(len(PAIRS)):
                if TRANSPOSED:
                    if PAIRS[pair][1] == block:
                        piece = values[PAIRS[pair][0] * len(PARTS) + part]
                        mixed = tl.dot(tl.trans(weights[pair]), piece, mixed, input_precision="ieee")
                elif PAIRS[pair][0] == block:
                    piece = values[PAIRS[pair][1] * len(PARTS) + part]
                    mixed = tl.dot(weights[pair], piece, mixed, input_precision="ieee")
            ours = (rows < length)[:, None] & (columns < CHANNELS)[None, :]
            places = start + rows[:, None] * stride + columns[None, :]
            tl.store(places, (mixed * FACTOR).to(start.dtype.element_ty), mask=ours)


@triton.jit
def fill(
    start,
    first,
    end,
    step,
    stride,
    VALUE: tl.constexpr,
    BLOCKS: tl.constexpr,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write VALUE for one head of as many tokens as the first block has, from `first` on, every `step` before `end`."""
    rows = tl.arange(0, BLOCKS[0][1])
    while first < end:
        for part in tl.static_range(len(PARTS)):
            columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
            ours = (first + rows < end)[:, None] & (columns < CHANNELS)[None, :]
            places = start + (first + rows)[:, None] * stride + columns[None, :]
            tl.store(places, tl.full(ours.shape, VALUE, start.dtype.element_ty), mask=ours)
        first += step

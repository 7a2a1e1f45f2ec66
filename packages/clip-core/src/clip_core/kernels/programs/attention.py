"""Attention over sequences of up to 128 tokens: one program holds all logits of a sequence in one head.

It reads queries, keys and values where one linear layer put them, and writes the result, or the packed gradient. The
backward pass computes the softmax again. It takes the product of a row of the result with its gradient from the
probabilities and theirs, so that the forward pass saves nothing but its input; no two programs write to one place.
Longer sequences, masks, dropout and the choice of what runs where are not here.

Rows are cut into blocks and channels into parts (see `pieces`), so that little of a matrix is padding.

Shapes: B batch, S sequence, T tokens of all sequences, R sequences, H heads, C channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.kernels.programs.launching import INTERPRETED, launch
from clip_core.kernels.programs.pieces import compare, fill, mix, read, rounded, softmax, softmax_backward

__all__ = ["LONGEST", "attend", "attend_backward", "attention_backward", "attention_forward", "configuration"]

LONGEST = 128
"""Tokens of the longest sequence that one program holds."""

_TILES = (16, 32, 64, 128)
_TEXT_TILE = 80  # OpenAI's captions have 77 tokens; with 128 rows two thirds of the logits would be padding
_WARPS = {16: 1, 32: 2, 64: 4, 80: 4, 128: 8}
_ENOUGH = 1024  # programs that fill a device even if each takes four sequences


def attention_forward(packed: Tensor, starts: Tensor | None, longest: int, *, causal: bool) -> Tensor:
    """Softmax attention of each token to all of its sequence, or with `causal` to itself and those before it.

    Args:
        packed: (T, 3, H, C), query, key and value of each token, of float16, bfloat16 or float32; without `starts`
            (B, S, 3, H, C). C is a multiple of 8 from 16 to 128.
        starts: (R + 1,) int32, where each sequence begins, the first at 0, and where the last one ends, at most at T;
            sequences may be empty. None for sequences of one length. Nothing outside of the tensors is read or
            written whatever stands there.
        longest: at least the length of the longest sequence, and at most 128; S without `starts`. The lengths are not
            on the host, so a longer sequence is no error: its result is NaN, and so is its gradient.
        causal: whether a token sees only itself and what is before it.

    Returns:
        (T, H, C) or (B, S, H, C), contiguous, of the dtype of `packed`; zeros for tokens behind the last sequence.
        Logits are divided by sqrt(C).

    Raises:
        ConfigError: a length, a number of channels or a dtype for which there is no program.
    """
    _check(packed, longest)
    out = torch.empty((*packed.shape[:-3], *packed.shape[-2:]), dtype=packed.dtype, device=packed.device)
    packed, strides, unit = _strides(packed, starts)
    _launch(attend, out, starts, longest, (packed, out), strides, CAUSAL=causal, UNIT=unit)
    return out


def attention_backward(
    gradient: Tensor, packed: Tensor, starts: Tensor | None, longest: int, *, causal: bool
) -> Tensor:
    """The gradient of `packed` from that of the result of `attention_forward`, whose other arguments these are.

    Args:
        gradient: (T, H, C) or (B, S, H, C), of any strides.
        packed, starts, longest, causal: as for the forward pass.

    Returns:
        Contiguous, of the shape and dtype of `packed`; zeros for tokens behind the last sequence.

    Raises:
        ConfigError: as the forward pass.
    """
    _check(packed, longest)
    d_packed = torch.empty(packed.shape, dtype=packed.dtype, device=packed.device)
    gradient, gradient_strides, gradient_unit = _strides(gradient.to(packed.dtype), starts)
    packed, strides, unit = _strides(packed, starts)
    constants = {"CAUSAL": causal, "GRADIENT_UNIT": gradient_unit, "UNIT": unit}
    tensors = (gradient, packed, d_packed)
    _launch(attend_backward, d_packed, starts, longest, tensors, (*gradient_strides, *strides), **constants)
    return d_packed


def configuration(tile: int, channels: int, *, causal: bool) -> dict[str, Any]:
    """The constants of a program for up to `tile` tokens that follow from its shape, and its warps.

    `tile` is 16, 32, 64, 80 or 128. Blocks and parts are pairs of a first row or channel and a number of them.
    """
    blocks, parts = _pieces(tile), _pieces(channels)
    pairs = [(query, key) for query in range(len(blocks)) for key in range(len(blocks)) if key <= query or not causal]
    return {
        "TILE": tile,
        "CHANNELS": channels,
        "BLOCKS": blocks,
        "PARTS": parts,
        "PAIRS": tuple(pairs),
        "SCALE": channels**-0.5,
        "num_warps": _WARPS[tile],
        "num_stages": 1,
    }


def _pieces(size: int) -> tuple[tuple[int, int], ...]:
    """The binary digits of `size`, rounded up to a multiple of 16: 80 is 64 from 0 on and 16 from 64 on."""
    pieces, first = [], 0
    for width in (128, 64, 32, 16):
        if -(-size // 16) * 16 & width:
            pieces.append((first, width))
            first += width
    return tuple(pieces)


def _tiles(longest: int, channels: int) -> list[int]:
    """Tiles for sequences up to `longest`, ascending; each takes the sequences that do not fit in the one before."""
    tiles = [tile for tile in _TILES if tile // 2 < longest or tile == _TILES[0]]
    if 64 < longest <= _TEXT_TILE and channels <= 64:  # wider heads leave no registers for a second block
        tiles[-1] = _TEXT_TILE
    return tiles


def _check(packed: Tensor, longest: int) -> None:
    channels = packed.shape[-1]
    if longest > LONGEST:
        raise ConfigError(f"longest is {longest}; allowed: up to {LONGEST} tokens, which one program can hold.")
    if channels % 8 or not 16 <= channels <= 128:
        raise ConfigError(f"packed has {channels} channels in a head; allowed: multiples of 8 from 16 to 128.")
    if packed.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise ConfigError(f"packed is of {packed.dtype}; allowed: torch.float16, torch.bfloat16 and torch.float32.")


def _strides(tensor: Tensor, starts: Tensor | None) -> tuple[Tensor, tuple[int, ...], int]:
    """The tensor, the strides of all its axes but the last in units, with one for the batch, and the unit.

    The unit is 8 elements where it can be, which tells the compiler that it may read 16 bytes at once. The tensor is
    copied where channels do not lie side by side, or where 32 bits are too few for the offsets in a sequence.
    """
    axes = tensor.dim() - 1
    inner = range(0 if starts is not None else 1, axes)  # tokens, [query, key and value,] heads
    sizes = [LONGEST if axis == inner[0] else tensor.shape[axis] for axis in inner]
    if (
        tensor.stride(-1) != 1
        or sum(tensor.stride(axis) * size for axis, size in zip(inner, sizes, strict=True)) >= 2**31
    ):
        tensor = tensor.contiguous()
    strides = tensor.stride()[:axes] if starts is None else (0, *tensor.stride()[:axes])
    unit = 8 if all(stride % 8 == 0 for stride in strides) else 1
    return tensor, tuple(stride // unit for stride in strides), unit


def _launch(
    program: Any,
    result: Tensor,
    starts: Tensor | None,
    longest: int,
    tensors: tuple[Tensor, ...],
    strides: tuple[int, ...],
    **constants: Any,
) -> None:
    """Start `program` once for each tile that sequences may need; those of another tile leave at once."""
    heads, channels = result.shape[-2:]
    constants["WIDEN"] = INTERPRETED and result.dtype == torch.bfloat16
    if starts is None:
        sequences, length = result.shape[:2]
        tokens, tiles = 0, _tiles(length, channels)[-1:]
    else:
        starts = starts.contiguous()
        sequences, length, tokens, tiles = len(starts) - 1, longest, len(result), _tiles(longest, channels)
        if sequences == 0:
            result.zero_()
    if result.numel() == 0:
        return
    numbers = (sequences, tokens, heads, length, *strides)
    shorter = 0
    for tile in tiles:
        # Most captions are short, so most programs of the larger tiles have nothing to do; few of them cost less.
        group = 4 if starts is not None and tile >= 64 and sequences * heads >= 4 * _ENOUGH else 1
        launch(
            program,
            (triton.cdiv(sequences, group) * heads,),
            *tensors,
            tensors[0] if starts is None else starts,
            *numbers,
            VARIED=starts is not None,
            SHORTER=shorter,
            GROUP=group,
            **constants,
            **configuration(tile, channels, causal=constants["CAUSAL"]),
        )
        shorter = tile


@triton.jit(do_not_specialize=["sequences", "tokens", "length"])
def attend(
    packed,
    out,  # contiguous
    starts,
    sequences,
    tokens,
    heads,
    length,
    batch_stride,
    token_stride,
    which_stride,
    head_stride,
    CAUSAL: tl.constexpr,
    UNIT: tl.constexpr,
    WIDEN: tl.constexpr,
    VARIED: tl.constexpr,
    SHORTER: tl.constexpr,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCKS: tl.constexpr,
    PARTS: tl.constexpr,
    PAIRS: tl.constexpr,
    SCALE: tl.constexpr,
):
    """One head of GROUP sequences, of those that have more than SHORTER and up to TILE tokens."""
    head = tl.program_id(0) % heads
    group = tl.program_id(0) // heads
    stride = token_stride * UNIT
    out_stride = heads * CHANNELS
    if VARIED and SHORTER == 0:
        start = out + head * CHANNELS
        _fill_others(start, starts, sequences, tokens, heads, length, group, 1, BLOCKS, PARTS, CHANNELS)
    # Hoisting offsets and masks out of this loop would cost the registers of another program on the same processor.
    for member in tl.range(0, GROUP, disable_licm=True):
        sequence = group * GROUP + member
        if sequence < sequences:
            begin, n = _bounds(starts, sequence, tokens, length, VARIED)
            if (n > SHORTER) & (n <= TILE) & (n <= length):
                query = packed + _offset(sequence, begin, head, batch_stride, token_stride, head_stride, VARIED) * UNIT
                key = query + which_stride * UNIT
                value = key + which_stride * UNIT
                mixed = out + (begin * heads + head) * CHANNELS
                q = read(query, n, stride, BLOCKS, PARTS, CHANNELS, WIDEN)
                k = read(key, n, stride, BLOCKS, PARTS, CHANNELS, WIDEN)
                v = read(value, n, stride, BLOCKS, PARTS, CHANNELS, WIDEN)
                scores = compare(q, k, PARTS, PAIRS)
                weights = softmax(scores, n, CAUSAL, BLOCKS, PAIRS, SCALE)
                mix(mixed, n, out_stride, rounded(v[0].dtype, weights), v, 1.0, False, BLOCKS, PARTS, PAIRS, CHANNELS)


@triton.jit(do_not_specialize=["sequences", "tokens", "length"])
def attend_backward(
    gradient,
    packed,
    d_packed,  # contiguous
    starts,
    sequences,
    tokens,
    heads,
    length,
    gradient_batch_stride,
    gradient_token_stride,
    gradient_head_stride,
    batch_stride,
    token_stride,
    which_stride,
    head_stride,
    CAUSAL: tl.constexpr,
    GRADIENT_UNIT: tl.constexpr,
    UNIT: tl.constexpr,
    WIDEN: tl.constexpr,
    VARIED: tl.constexpr,
    SHORTER: tl.constexpr,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCKS: tl.constexpr,
    PARTS: tl.constexpr,
    PAIRS: tl.constexpr,
    SCALE: tl.constexpr,
):
    """As `attend`. A gradient is written before more is read, which leaves more registers and shared memory."""
    head = tl.program_id(0) % heads
    group = tl.program_id(0) // heads
    stride = token_stride * UNIT
    d_stride = 3 * heads * CHANNELS
    if VARIED and SHORTER == 0:
        start = d_packed + head * CHANNELS
        _fill_others(start, starts, sequences, tokens, heads, length, group, 3, BLOCKS, PARTS, CHANNELS)
    for member in tl.range(0, GROUP, disable_licm=True):
        sequence = group * GROUP + member
        if sequence < sequences:
            begin, n = _bounds(starts, sequence, tokens, length, VARIED)
            if (n > SHORTER) & (n <= TILE) & (n <= length):
                query = packed + _offset(sequence, begin, head, batch_stride, token_stride, head_stride, VARIED) * UNIT
                key = query + which_stride * UNIT
                value = key + which_stride * UNIT
                offset = _offset(
                    sequence, begin, head, gradient_batch_stride, gradient_token_stride, gradient_head_stride, VARIED
                )
                d_mixed = gradient + offset * GRADIENT_UNIT
                d_query = d_packed + (begin * 3 * heads + head) * CHANNELS
                d_key = d_query + heads * CHANNELS
                d_value = d_key + heads * CHANNELS
                q = read(query, n, stride, BLOCKS, PARTS, CHANNELS, WIDEN)
                k = read(key, n, stride, BLOCKS, PARTS, CHANNELS, WIDEN)
                g = read(d_mixed, n, gradient_token_stride * GRADIENT_UNIT, BLOCKS, PARTS, CHANNELS, WIDEN)
                scores = compare(q, k, PARTS, PAIRS)
                weights = softmax(scores, n, CAUSAL, BLOCKS, PAIRS, SCALE)
                mix(d_value, n, d_stride, rounded(g[0].dtype, weights), g, 1.0, True, BLOCKS, PARTS, PAIRS, CHANNELS)
                v = read(value, n, stride, BLOCKS, PARTS, CHANNELS, WIDEN)
                d_weights = compare(g, v, PARTS, PAIRS)
                d_scores = rounded(q[0].dtype, softmax_backward(weights, d_weights, BLOCKS, PAIRS))
                mix(d_query, n, d_stride, d_scores, k, SCALE, False, BLOCKS, PARTS, PAIRS, CHANNELS)
                mix(d_key, n, d_stride, d_scores, q, SCALE, True, BLOCKS, PARTS, PAIRS, CHANNELS)


@triton.jit
def _fill_others(
    start,
    starts,
    sequences,
    tokens,
    heads,
    length,
    sequence,
    COUNT: tl.constexpr,
    BLOCKS: tl.constexpr,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write one head of what no attention is for: zeros behind the last sequence, NaN for one longer than `length`.

    Programs for the shortest sequences do so, which take one each. A token has COUNT rows for each head.
    """
    stride = COUNT * heads * CHANNELS
    behind = tl.maximum(tl.load(starts + sequences), 0).to(tl.int64)
    step = BLOCKS[0][1]
    # The programs of a head take turns.
    turns = tl.num_programs(0) // heads * step
    begin, n = _bounds(starts, sequence, tokens, length, True)
    for which in tl.static_range(COUNT):
        here = start + which * heads * CHANNELS
        fill(here, behind + sequence * step, tokens, turns, stride, 0.0, BLOCKS, PARTS, CHANNELS)
        if n > length:
            fill(here, begin, begin + n, step, stride, float("nan"), BLOCKS, PARTS, CHANNELS)


@triton.jit
def _bounds(starts, sequence, tokens, length, VARIED: tl.constexpr):
    """Where a sequence begins among all tokens, in 64 bits, and its length; inside of them whatever `starts` says."""
    if VARIED:
        begin = tl.minimum(tl.maximum(tl.load(starts + sequence), 0), tokens)
        begin = tl.where(sequence == 0, 0, begin)
        end = tl.minimum(tl.maximum(tl.load(starts + sequence + 1), 0), tokens)
        return begin.to(tl.int64), end - begin
    else:
        return sequence.to(tl.int64) * length, length


@triton.jit
def _offset(sequence, begin, head, batch_stride, token_stride, head_stride, VARIED: tl.constexpr):
    if VARIED:
        return begin * token_stride + head * head_stride
    else:
        return sequence.to(tl.int64) * batch_stride + head * head_stride

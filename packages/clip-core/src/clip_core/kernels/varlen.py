"""Self-attention over sequences of different length that stand one behind another, without padding.

Where `dispatch` chooses Triton, the programs of `attention` run on the tokens as they stand. Elsewhere the sequences
are padded for torch's `scaled_dot_product_attention`, and for it alone; what is around attention has no padding.

Shapes: T tokens of all sequences, R sequences, L the longest of them (1 or more), H heads, C channels of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.kernels import dispatch
from clip_core.kernels.attention import check_packed, fused_attention, refuse_others, torch_attention

__all__ = ["packed_attention"]


def packed_attention(packed: Tensor, starts: Tensor, longest: int | np.integer[Any], *, causal: bool) -> Tensor:
    """As `attention`, for sequences of any length, each of which sees only itself.

    On a CPU the values of `starts` are checked. On a device no value is read on the host, so that nothing waits for it:
    there a sequence of more than `longest` tokens is NaN, and whatever `starts` holds, nothing outside of `packed` is
    read or written; of starts that fall the result is without meaning. So it is in a compiled graph on a CPU.

    Args:
        packed: (T, 3, H, C), query, key and value of each token, of float32, bfloat16, float16 or float64.
        starts: (R + 1,) int32 or int64 on the same device, where each sequence begins, the first at 0, and where the
            last one ends, which is at most T; they never fall, and sequences may be empty.
        longest: at least the length of the longest sequence.
        causal: whether a token sees only itself and what is before it.

    Returns:
        (T, H, C), of the dtype of `packed`; zeros for tokens behind the last sequence.

    Raises:
        ConfigError: an argument has another type, shape or dtype, the two are on different devices, `starts` on a CPU
            has other values, or `use_backend("triton")` asks for what there is no program for.
    """
    check_packed("packed_attention", packed)
    if not isinstance(starts, Tensor) or starts.dtype not in (torch.int32, torch.int64):
        given = f"of {starts.dtype}" if isinstance(starts, Tensor) else f"as {type(starts).__name__}"
        raise ConfigError(
            f"packed_attention got starts {given}; allowed: a tensor of int32 or int64. Make one with "
            "torch.tensor([0, *lengths]).cumsum(0)."
        )
    if isinstance(longest, np.integer):
        longest = int(longest)
    if not isinstance(longest, int | torch.SymInt):
        raise ConfigError(
            f"packed_attention got longest {longest!r} ({type(longest).__name__}); allowed: an integer of the host, as "
            "max(lengths)."
        )
    shapes = packed.ndim == 4 and packed.shape[1] == 3 and starts.ndim == 1 and len(starts) > 0
    if not shapes or longest < 0:
        raise ConfigError(
            f"packed_attention got packed {tuple(packed.shape)}, starts {tuple(starts.shape)} and longest {longest}; "
            "allowed: (tokens, 3, heads, channels), (sequences + 1,) and a length of 0 or more."
        )
    if starts.device != packed.device:
        raise ConfigError(
            f"packed_attention got packed on {packed.device} and starts on {starts.device}; "
            "allowed: both on one device."
        )
    # torch.jit does not say that it exports is_tracing.
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    checked = type(starts) is Tensor and starts.device.type == "cpu" and not tracing
    if checked:
        _check_values(starts, len(packed), longest)
    if dispatch.attention_backend("packed_attention", packed, longest, causal=causal) == "triton":
        if starts.dtype != torch.int32:
            starts = starts.clamp(0, len(packed)).int()
        refuse_others("packed_attention", packed)
        fused: Tensor = fused_attention(packed, starts, longest, causal)
        return fused
    if 0 in (len(packed), len(starts) - 1):
        return packed[:, 0].masked_fill(torch.ones((), dtype=torch.bool, device=packed.device), 0)
    places = _Places.of(starts, len(packed), longest)
    out = _padded(packed, places, causal)
    if not checked:
        # A product, so that the gradient is NaN too.
        out = out * torch.where(places.over[:, None, None], torch.nan, 1.0).to(out.dtype)
    return out


def _check_values(starts: Tensor, tokens: int, longest: int) -> None:
    values = starts.numpy()
    first, last = int(values[0]), int(values[-1])
    falls = (values[1:] < values[:-1]).nonzero()[0]
    if first != 0 or last > tokens or len(falls):
        found = (
            f"starts that begin at {first}"
            if first
            else f"starts that fall from {values[falls[0]]} to {values[falls[0] + 1]} at {falls[0]}"
            if len(falls)
            else f"starts that end at {last}"
        )
        raise ConfigError(
            f"packed_attention got {found}, and {tokens} tokens; allowed: from 0 to at most the number of tokens, "
            "never falling. torch.tensor([0, *lengths]).cumsum(0) is right where lengths are those of the sequences."
        )
    most = int((values[1:] - values[:-1]).max(initial=0))
    if most > longest:
        raise ConfigError(
            f"packed_attention got longest {longest} and a sequence of {most} tokens; allowed: {most} or more."
        )


class _Places(NamedTuple):
    """Where each token stands in a padded batch, and what stands in each place there."""

    row: Tensor
    """(T,)"""
    place: Tensor
    """(T,) in its row."""
    real: Tensor
    """(T,) False for tokens behind the last sequence."""
    token: Tensor
    """(R, L)"""
    held: Tensor
    """(R, L) False where a row has ended."""
    over: Tensor
    """(T,) True for tokens of sequences that are longer than was said."""

    @classmethod
    def of(cls, starts: Tensor, count: int, longest: int) -> _Places:
        # As the programs do: where the values were not checked, nothing outside of the tokens is meant.
        ends = starts[1:].clamp(0, count)
        begins = F.pad(ends[:-1], (1, 0))
        tokens = torch.arange(count, device=starts.device, dtype=starts.dtype)
        row = torch.bucketize(tokens, ends, right=True).clamp(max=len(ends) - 1)
        room = max(longest, 1)
        token = begins[:, None] + torch.arange(room, device=starts.device, dtype=starts.dtype)
        real = tokens < ends[-1]
        return cls(
            row,
            (tokens - begins[row]).clamp(0, room - 1),
            real,
            token.clamp(max=count - 1),
            token < ends[:, None],
            real & ((ends - begins) > longest)[row],
        )


def _padded(packed: Tensor, places: _Places, causal: bool) -> Tensor:
    # A compiler derives indexing better than it traces functions of autograd.
    pad, unpad = (_pad, _unpad) if torch.compiler.is_compiling() else (_Pad.apply, _Unpad.apply)
    rows = pad(packed, *places[:5])
    # A causal row never sees what is behind its end. The others need a mask; an empty one sees its first place.
    first = torch.arange(rows.shape[1], device=rows.device) == 0
    mask = None if causal else (places.held | first)[:, None, None]
    mixed = torch_attention(rows, causal=causal, mask=mask)
    out: Tensor = unpad(mixed, *places[:5])
    return out


def _pad(packed: Tensor, *places: Tensor) -> Tensor:
    """(T, ...) -> (R, L, ...), zeros where a row has ended."""
    _, _, _, token, held = places
    return packed[token].masked_fill_(~held[(...,) + (None,) * (packed.ndim - 1)], 0)


def _unpad(rows: Tensor, *places: Tensor) -> Tensor:
    """(R, L, ...) -> (T, ...), zeros for tokens behind the last sequence."""
    row, place, real, _, _ = places
    return rows[row, place].masked_fill_(~real[(...,) + (None,) * (rows.ndim - 2)], 0)


# Each is the other's derivative. Autograd's own, of an index, would add up gradients one by one in case that one token
# was taken twice.
class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(packed: Tensor, *places: Tensor) -> Tensor:
        return _pad(packed, *places)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _Unpad.apply(gradient, *ctx.saved_tensors), None, None, None, None, None


class _Unpad(torch.autograd.Function):
    @staticmethod
    def forward(rows: Tensor, *places: Tensor) -> Tensor:
        return _unpad(rows, *places)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _Pad.apply(gradient, *ctx.saved_tensors), None, None, None, None, None

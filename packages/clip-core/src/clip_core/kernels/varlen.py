"""Self-attention over sequences of different length that stand one behind another, without padding.

Where `dispatch` chooses Triton, the programs of `attention` run on the tokens as they stand. Elsewhere the sequences
are padded for torch's `scaled_dot_product_attention`, and for it alone; what is around attention has no padding.

Shapes: T tokens of all sequences, R sequences, L the longest of them, H heads, C channels of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.kernels import dispatch
from clip_core.kernels.attention import fused_attention

__all__ = ["packed_attention"]


def packed_attention(packed: Tensor, starts: Tensor, longest: int, *, causal: bool) -> Tensor:
    """As `attention`, for sequences of any length, each of which sees only itself.

    No value of `starts` is read on the host, so that nothing waits for the device.

    Args:
        packed: (T, 3, H, C), query, key and value of each token.
        starts: (R + 1,) int32 on the same device, where each sequence begins, the first at 0, and where the last one
            ends, which is at most T; sequences may be empty.
        longest: at least the length of the longest sequence.
        causal: whether a token sees only itself and what is before it.

    Returns:
        (T, H, C), of the dtype of `packed`; zeros for tokens behind the last sequence.

    Raises:
        ConfigError: an argument has another shape, the two are on different devices, or `use_backend("triton")` asks
            for what there is no program for.
    """
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
    if dispatch.attention_backend("packed_attention", packed, longest, causal=causal) == "triton":
        fused: Tensor = fused_attention(packed, starts, longest, causal)
        return fused
    if 0 in (len(packed), len(starts) - 1, longest):
        return packed[:, 0].masked_fill(torch.ones((), dtype=torch.bool, device=packed.device), 0)
    return _padded(packed, _Places.of(starts, len(packed), longest), causal)


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

    @classmethod
    def of(cls, starts: Tensor, count: int, longest: int) -> _Places:
        tokens = torch.arange(count, device=starts.device, dtype=starts.dtype)
        row = torch.bucketize(tokens, starts[1:], right=True).clamp(max=len(starts) - 2)
        token = starts[:-1, None] + torch.arange(longest, device=starts.device, dtype=starts.dtype)
        return cls(
            row,
            (tokens - starts[row]).clamp(max=longest - 1),
            tokens < starts[-1],
            token.clamp(max=count - 1),
            token < starts[1:, None],
        )


def _padded(packed: Tensor, places: _Places, causal: bool) -> Tensor:
    # A compiler derives indexing better than it traces functions of autograd.
    pad, unpad = (_pad, _unpad) if torch.compiler.is_compiling() else (_Pad.apply, _Unpad.apply)
    rows = pad(packed, *places)
    query, key, value = rows.permute(2, 0, 3, 1, 4).unbind(0)
    # A causal row never sees what is behind its end. The others need a mask; an empty one sees its first place.
    first = torch.arange(rows.shape[1], device=rows.device) == 0
    mask = None if causal else (places.held | first)[:, None, None]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal).transpose(1, 2)
    out: Tensor = unpad(mixed, *places)
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

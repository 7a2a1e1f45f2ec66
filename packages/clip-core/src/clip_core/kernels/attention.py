"""Self-attention over sequences of one length, from packed queries, keys and values.

Triton's programs hold a whole sequence of one head at once, read the packed input and write its packed gradient, and
save nothing but the input; `dispatch` says where they run. Elsewhere it is torch's `scaled_dot_product_attention`.
Masks and dropout are not here.

Shapes: B batch, S sequence, T tokens of all sequences, R sequences, H heads, C channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.kernels import dispatch

__all__ = ["attention", "check_packed", "fused_attention", "refuse_others", "torch_attention"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def attention(packed: Tensor, *, causal: bool) -> Tensor:
    """Softmax attention of each position to all of its sequence, or with `causal` to itself and those before it.

    Args:
        packed: (B, S, 3, H, C), query, key and value of each position, as one linear layer gives them, of float32,
            bfloat16, float16 or float64.
        causal: whether a position sees only itself and what is before it.

    Returns:
        (B, S, H, C), of the dtype of `packed`. Logits are divided by sqrt(C).

    Raises:
        ConfigError: `packed` has another shape or dtype, or `use_backend("triton")` asks for what there is no
            program for.
    """
    check_packed("attention", packed)
    if packed.ndim != 5 or packed.shape[2] != 3:
        raise ConfigError(
            f"attention got packed of shape {tuple(packed.shape)}; allowed: (batch, sequence, 3, heads, channels)."
        )
    if dispatch.attention_backend("attention", packed, packed.shape[1], causal=causal) == "triton":
        refuse_others("attention", packed)
        fused: Tensor = fused_attention(packed, None, packed.shape[1], causal)
        return fused
    return torch_attention(packed, causal=causal)


def torch_attention(packed: Tensor, *, causal: bool, mask: Tensor | None = None) -> Tensor:
    """Torch's attention of (B, S, 3, H, C), (B, S, H, C); `mask`, if any, is true where a row may see a column.

    With gradients bfloat16 is computed in float32 on a CPU, where torch's backward pass in bfloat16 takes three times
    as long as that, copies included (torch 2.15, AVX-512).
    """
    dtype, training = packed.dtype, torch.is_grad_enabled() and packed.requires_grad
    if training and dtype == torch.bfloat16 and packed.device.type == "cpu":
        with torch.autocast("cpu", enabled=False):
            return _attend(packed.float(), mask, causal).to(dtype)
    return _attend(packed, mask, causal)


def _attend(packed: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal).transpose(1, 2)


def check_packed(name: str, packed: Tensor) -> None:
    """Raise `ConfigError` unless `packed` is a tensor whose dtype the operation called `name` can work in."""
    if not isinstance(packed, Tensor) or packed.dtype not in _DTYPES:
        given = f"of {packed.dtype}" if isinstance(packed, Tensor) else f"as {type(packed).__name__}"
        raise ConfigError(f"{name} got packed {given}; allowed: a tensor of float32, bfloat16, float16 or float64.")


def refuse_others(name: str, packed: Tensor) -> None:
    """Raise `ConfigError` where programs are asked for derivatives in another way than backward."""
    dispatch.refuse_transforms(name, packed, instead="For others call it under clip_core.kernels.use_backend('torch').")


@torch.library.custom_op("clip_core::attention", mutates_args=())
def fused_attention(packed: Tensor, starts: Tensor | None, longest: int, causal: bool) -> Tensor:
    """Attention by Triton's programs, for sequences of one length or of many; differentiable once.

    Args:
        packed: (B, S, 3, H, C); with `starts` (T, 3, H, C).
        starts: None, or (R + 1,) as for `packed_attention`.
        longest: S, or at least the length of the longest sequence; at most `dispatch.MOST_TOKENS`.
        causal: as for `attention`.

    Returns:
        (B, S, H, C) or (T, H, C), contiguous.
    """
    from clip_core.kernels.programs.attention import attention_forward

    return attention_forward(packed, starts, longest, causal=causal)


@fused_attention.register_fake
def _(packed: Tensor, starts: Tensor | None, longest: int, causal: bool) -> Tensor:
    return packed.new_empty((*packed.shape[:-3], *packed.shape[-2:]))


@torch.library.custom_op("clip_core::attention_backward", mutates_args=())
def _backward(gradient: Tensor, packed: Tensor, starts: Tensor | None, longest: int, causal: bool) -> Tensor:
    from clip_core.kernels.programs.attention import attention_backward

    return attention_backward(gradient, packed, starts, longest, causal=causal)


@_backward.register_fake
def _(gradient: Tensor, packed: Tensor, starts: Tensor | None, longest: int, causal: bool) -> Tensor:
    return packed.new_empty(packed.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor | None, int, bool], output: Tensor) -> None:
    packed, starts, ctx.longest, ctx.causal = inputs
    ctx.save_for_backward(packed, starts)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    packed, starts = ctx.saved_tensors
    return _backward(gradient, packed, starts, ctx.longest, ctx.causal), None, None, None


def _refuse(ctx: Any, gradient: Tensor) -> None:
    raise ConfigError(
        "The programs for attention have no second derivative; call attention under "
        "clip_core.kernels.use_backend('torch') where a gradient is differentiated again."
    )


fused_attention.register_autograd(_differentiate, setup_context=_keep)
_backward.register_autograd(_refuse)

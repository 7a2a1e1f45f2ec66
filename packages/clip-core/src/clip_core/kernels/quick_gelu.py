"""QuickGELU, x * sigmoid(1.702 x), keeping nothing but its input for the backward pass.

Written with torch's operations, autograd keeps three tensors of the widest layer of each block; here the sigmoid is
computed again. Where `dispatch` chooses it, each direction is one Triton program. torch.compile and exporters get the
plain formula, which the compiler fuses by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clip_core.kernels import dispatch

__all__ = ["quick_gelu"]


def quick_gelu(x: Tensor) -> Tensor:
    """The approximation of GELU that OpenAI trained CLIP with, elementwise: x * sigmoid(1.702 x).

    Args:
        x: any shape and floating dtype.

    Returns:
        Of the shape and dtype of `x`. A program of Triton rounds once; torch rounds each of the three steps to the
        dtype.

    Raises:
        ConfigError: `use_backend("triton")` asks for a dtype for which there is no program.
    """
    # torch.jit does not say that it exports is_tracing.
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    if tracing and dispatch.forced_backend() != "triton":
        return _formula(x)
    out: Tensor
    if dispatch.pointwise_backend(x) == "triton":
        dispatch.refuse_transforms(
            "quick_gelu", x, instead="For others call it under clip_core.kernels.use_backend('torch')."
        )
        out = _fused(x)
    elif torch.is_grad_enabled() and x.requires_grad:
        out = _Recomputing.apply(x)
    else:
        out = _formula(x)
    return out


def _formula(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _derivative(x: Tensor) -> Tensor:
    logits = 1.702 * x
    gates = torch.sigmoid(logits)
    return gates * (1 + logits * (1 - gates))


class _Recomputing(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _formula(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody differentiates the gradient
            return gradient * _derivative(x)
        # QuickGELU is silu(1.702 x) / 1.702, so this is its derivative, in one pass that rounds once.
        out: Tensor = torch.ops.aten.silu_backward(gradient, 1.702 * x)
        return out

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return tangent * _derivative(x)


@torch.library.custom_op("clip_core::quick_gelu", mutates_args=())
def _fused(x: Tensor) -> Tensor:
    from clip_core.kernels.programs.quick_gelu import quick_gelu_forward

    return quick_gelu_forward(x)


@_fused.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("clip_core::quick_gelu_backward", mutates_args=())
def _fused_backward(gradient: Tensor, x: Tensor) -> Tensor:
    from clip_core.kernels.programs.quick_gelu import quick_gelu_backward

    return quick_gelu_backward(gradient, x)


@_fused_backward.register_fake
def _(gradient: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _keep(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, gradient: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return gradient * _derivative(x) if torch.is_grad_enabled() else _fused_backward(gradient, x)


_fused.register_autograd(_differentiate, setup_context=_keep)

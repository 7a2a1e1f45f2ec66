"""SigLIP's pairwise sigmoid loss (Zhai et al. 2023), which never holds the matrix of logits.

Shapes: B pairs, D features. A logit's gradient needs no other logit, so that the forward pass computes all gradients,
where any are wanted, and the backward pass multiplies them. `parts` has what is computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clip_core.kernels import parts
from clip_core.kernels.contrastive import as_scalar, check_pairs, refuse_others, refuse_second_derivative

__all__ = ["siglip_loss"]


def siglip_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float, logit_bias: Tensor | float | None = None
) -> Tensor:
    """Sum over all B^2 pairs of -log sigmoid(logit), with the sign of the logit turned where they do not match, over B.

    Memory is linear in B, forward and backward, on every device; the result is the same to the bit for the same input.
    Backends and dtypes are those of `clip_loss`. Without gradients a call costs a third.

    Args:
        image_features: (B, D), rows of length 1, of float32, bfloat16, float16 or float64 and any strides.
        text_features: (B, D), rows of length 1; row i belongs to image i.
        logit_scale: scalar that multiplies the cosines (already exponentiated): a number, or a tensor of one element.
        logit_bias: scalar added to every logit, in the same forms; None is 0.

    Returns:
        Scalar in nats, float32 (float64 for float64 features).

    Raises:
        ConfigError: as `clip_loss`.
    """
    check_pairs("siglip_loss", image_features, text_features)
    backend, dtype = parts.choose(image_features, text_features)
    where = image_features.device, parts.wide(dtype)
    scale = as_scalar("siglip_loss", "logit_scale", logit_scale, *where)
    bias = as_scalar("siglip_loss", "logit_bias", 0.0 if logit_bias is None else logit_bias, *where)
    inputs = (image_features, text_features, scale, bias)
    refuse_others("siglip_loss", *inputs)
    gradients = torch.is_grad_enabled() and any(value.requires_grad for value in inputs)
    for_x, for_y = (gradients and value.requires_grad for value in inputs[:2])
    loss: Tensor = _forward(*inputs, gradients, for_x, for_y, backend, dtype)[0]
    return loss


Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("clip_core::siglip_loss", mutates_args=())
def _forward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    gradients: bool,
    for_x: bool,
    for_y: bool,
    backend: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    with torch.autocast(x.device.type, enabled=False):
        loss, found = parts.sigmoid_loss(
            parts.operand(x, dtype),
            parts.operand(y, dtype),
            scale.to(parts.wide(dtype)).reshape(()),
            bias.to(parts.wide(dtype)).reshape(()),
            gradients=gradients,
            for_rows=for_x,
            for_columns=for_y,
            backend="triton" if backend == "triton" else "torch",
        )
        pairs = len(x)
        return (
            (loss / pairs).to(parts.wide(dtype)),
            found.rows.div_(pairs),
            found.columns.div_(pairs),
            (found.scale / pairs).to(parts.wide(dtype)).reshape(scale.shape),
            (found.bias / pairs).to(parts.wide(dtype)).reshape(bias.shape),
        )


@_forward.register_fake
def _(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    gradients: bool,
    for_x: bool,
    for_y: bool,
    backend: str,
    dtype: torch.dtype,
) -> Outputs:
    loss = x.new_empty((), dtype=parts.wide(dtype))
    return (
        loss,
        loss.new_empty(x.shape if for_x else 0),
        loss.new_empty(y.shape if for_y else 0),
        loss.new_empty(scale.shape),
        loss.new_empty(bias.shape),
    )


@torch.library.custom_op("clip_core::siglip_loss_backward", mutates_args=())
def _backward(gradient: Tensor, saved: Tensor, dtype: torch.dtype) -> Tensor:
    # Written in the dtype of the input at once: a product in float32 beside it would be most of the memory.
    return torch.mul(saved, gradient, out=torch.empty_like(saved, dtype=dtype))


@_backward.register_fake
def _(gradient: Tensor, saved: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(saved, dtype=dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.dtypes = [value.dtype for value in inputs[:4]]


def _differentiate(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    wanted = zip(ctx.saved_tensors, ctx.dtypes, ctx.needs_input_grad[:4], strict=True)
    given = (_backward(gradient, saved, dtype) if needed else None for saved, dtype, needed in wanted)
    return (*given, None, None, None, None, None)


_forward.register_autograd(_differentiate, setup_context=_keep)
_backward.register_autograd(refuse_second_derivative)

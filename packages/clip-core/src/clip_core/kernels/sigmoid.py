"""SigLIP's pairwise sigmoid loss (Zhai et al. 2023), which never holds the matrix of logits.

Shapes: B pairs, D features. A logit's gradient needs no other logit, so that the forward pass computes all gradients,
where any are wanted, and the backward pass multiplies them. `blocks` has the arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clip_core.kernels import blocks
from clip_core.kernels.contrastive import check_pairs, computing_dtype

__all__ = ["siglip_loss"]


def siglip_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor, logit_bias: Tensor | None = None
) -> Tensor:
    """Sum over all B^2 pairs of -log sigmoid(logit), with the sign of the logit turned where they do not match, over B.

    Memory is linear in B, forward and backward; the result is the same to the bit for the same input. Under autocast
    and for features of half precision the arithmetic is float32.

    Args:
        image_features: (B, D), rows of length 1.
        text_features: (B, D), rows of length 1; row i belongs to image i.
        logit_scale: scalar that multiplies the cosines (already exponentiated).
        logit_bias: scalar added to every logit; None is 0.

    Returns:
        Scalar in nats, float32 (float64 for float64 features).

    Raises:
        ConfigError: the two sides differ in shape, or hold no pair.
    """
    check_pairs("siglip_loss", image_features, text_features)
    bias = torch.zeros_like(logit_scale) if logit_bias is None else logit_bias
    inputs = (image_features, text_features, logit_scale, bias)
    gradients = torch.is_grad_enabled() and any(value.requires_grad for value in inputs)
    loss: Tensor = _forward(
        *inputs, gradients, gradients and image_features.requires_grad, gradients and text_features.requires_grad
    )[0]
    return loss


Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("clip_core::siglip_loss", mutates_args=())
def _forward(
    x: Tensor, y: Tensor, scale: Tensor, bias: Tensor, gradients: bool, for_x: bool, for_y: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = computing_dtype(x, y)
    with torch.autocast(x.device.type, enabled=False):
        loss, found = blocks.sigmoid_loss(
            x.to(dtype),
            y.to(dtype),
            scale.to(dtype),
            bias.to(dtype),
            gradients=gradients,
            for_rows=for_x,
            for_columns=for_y,
        )
        pairs = len(x)
        return (
            (loss / pairs).to(dtype),
            found.rows.div_(pairs),
            found.columns.div_(pairs),
            (found.scale / pairs).to(dtype).reshape(scale.shape),
            (found.bias / pairs).to(dtype).reshape(bias.shape),
        )


@_forward.register_fake
def _(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor, gradients: bool, for_x: bool, for_y: bool) -> Outputs:
    dtype = computing_dtype(x, y)
    loss = x.new_empty((), dtype=dtype)
    return (
        loss,
        torch.empty_like(x, dtype=dtype) if for_x else loss.new_empty(0),
        torch.empty_like(y, dtype=dtype) if for_y else loss.new_empty(0),
        torch.empty_like(scale, dtype=dtype),
        torch.empty_like(bias, dtype=dtype),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.dtypes = [value.dtype for value in inputs[:4]]


def _differentiate(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    wanted = ctx.needs_input_grad[:4]
    given = zip(ctx.saved_tensors, ctx.dtypes, wanted, strict=True)
    found = [(value * gradient).to(dtype) if needed else None for value, dtype, needed in given]
    return (*found, None, None, None)


_forward.register_autograd(_differentiate, setup_context=_keep)

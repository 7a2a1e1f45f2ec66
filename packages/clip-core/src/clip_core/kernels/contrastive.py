"""CLIP's symmetric contrastive loss (Radford et al. 2021, figure 3), which never holds the matrix of logits.

Shapes: B pairs, D features. The forward pass keeps two numbers per pair; the backward pass computes the logits again,
tile by tile. `blocks` has the arithmetic, with rows and columns of different number for a loss over several processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.kernels import blocks

__all__ = ["check_pairs", "clip_loss", "computing_dtype"]


def clip_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor, logit_bias: Tensor | None = None
) -> Tensor:
    """Mean over both directions of the cross-entropy of each feature with its own partner among all B.

    Memory is linear in B, forward and backward; the result is the same to the bit for the same input. Under autocast
    and for features of half precision the arithmetic is float32.

    Args:
        image_features: (B, D), rows of length 1.
        text_features: (B, D), rows of length 1; row i belongs to image i.
        logit_scale: scalar that multiplies the cosines (already exponentiated).
        logit_bias: scalar added to every logit, or None. It cancels in the softmax, so its gradient is 0; it is taken
            so that every model's output can be passed as it is.

    Returns:
        Scalar in nats, float32 (float64 for float64 features).

    Raises:
        ConfigError: the two sides differ in shape, or hold no pair.
    """
    check_pairs("clip_loss", image_features, text_features)
    loss: Tensor = _forward(image_features, text_features, logit_scale)[0]
    return loss if logit_bias is None else loss + 0 * logit_bias.to(loss.dtype)


def check_pairs(name: str, image_features: Tensor, text_features: Tensor) -> None:
    """Raise `ConfigError` unless both sides are (B, D) with B of 1 or more; `name` is that of the loss."""
    if image_features.shape != text_features.shape or image_features.ndim != 2 or not len(image_features):
        raise ConfigError(
            f"{name} got image features {tuple(image_features.shape)} and text features "
            f"{tuple(text_features.shape)}; allowed: two of one shape (pairs, features), one pair or more."
        )


def computing_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """float32, or float64 where a side is: differences of logits around 100 are lost in half precision."""
    return torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32


@torch.library.custom_op("clip_core::clip_loss", mutates_args=())
def _forward(x: Tensor, y: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dtype = computing_dtype(x, y)
    with torch.autocast(x.device.type, enabled=False):
        rows, columns = x.to(dtype), y.to(dtype)
        of_rows, of_columns = blocks.contrastive_statistics(rows, columns, _own(rows, columns), scale.to(dtype))
        row_loss, column_loss = blocks.log_sum_exp(of_rows), blocks.log_sum_exp(of_columns)
        loss = (row_loss.mean(dtype=torch.float64) + column_loss.mean(dtype=torch.float64)) / 2
    return loss.to(dtype), row_loss, column_loss


@_forward.register_fake
def _(x: Tensor, y: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    loss = x.new_empty((), dtype=computing_dtype(x, y))
    return loss, loss.new_empty(x.shape[0]), loss.new_empty(y.shape[0])


@torch.library.custom_op("clip_core::clip_loss_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    row_loss: Tensor,
    column_loss: Tensor,
    for_x: bool,
    for_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = computing_dtype(x, y)
    with torch.autocast(x.device.type, enabled=False):
        rows, columns = x.to(dtype), y.to(dtype)
        found = blocks.contrastive_gradients(
            rows,
            columns,
            _own(rows, columns),
            scale.to(dtype),
            row_loss,
            column_loss,
            for_rows=for_x,
            for_columns=for_y,
        )
        factor = gradient.to(dtype) / (2 * len(x))
        return (
            found.rows.mul_(factor).to(x.dtype),
            found.columns.mul_(factor).to(y.dtype),
            (found.scale * factor).to(scale.dtype).reshape(scale.shape),
        )


@_backward.register_fake
def _(
    gradient: Tensor,
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    row_loss: Tensor,
    column_loss: Tensor,
    for_x: bool,
    for_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    empty = x.new_empty(0)
    return (
        torch.empty_like(x) if for_x else empty,
        torch.empty_like(y) if for_y else empty.to(y.dtype),
        torch.empty_like(scale),
    )


def _own(rows: Tensor, columns: Tensor) -> Tensor:
    cosines: Tensor = torch.linalg.vecdot(rows, columns)
    return cosines


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output[1:])


def _differentiate(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    for_x, for_y, for_scale = ctx.needs_input_grad
    dx, dy, dscale = _backward(gradient, *ctx.saved_tensors, for_x, for_y)
    return dx if for_x else None, dy if for_y else None, dscale if for_scale else None


_forward.register_autograd(_differentiate, setup_context=_keep)

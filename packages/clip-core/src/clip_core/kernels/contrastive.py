"""CLIP's symmetric contrastive loss (Radford et al. 2021, figure 3), which never holds the matrix of logits.

Shapes: B pairs, D features. The forward pass keeps three numbers per pair; the backward pass computes the logits again,
tile by tile. `parts` has what is computed, with rows and columns of different number for a loss over several processes.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.kernels import parts
from clip_core.kernels.dispatch import Backend

__all__ = ["as_scalar", "check_pairs", "clip_loss", "refuse_second_derivative"]


def clip_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float, logit_bias: Tensor | float | None = None
) -> Tensor:
    """Mean over both directions of the cross-entropy of each feature with its own partner among all B.

    Memory is linear in B, forward and backward, on every device; the result is the same to the bit for the same input.
    On a CUDA device Triton's programs run where they can, elsewhere plain torch; `use_backend` chooses by hand.

    Logits are float32 whatever the features are, float64 for float64 ones. Features of half precision are multiplied as
    they are and summed in float32. Autocast has a say where Triton's programs run: there float32 features are rounded
    to its dtype before they are multiplied. Each gradient has the dtype of its input. There is no second derivative.

    Args:
        image_features: (B, D), rows of length 1, of any dtype and strides.
        text_features: (B, D), rows of length 1; row i belongs to image i. Of another dtype than the images', both count
            as the wider one.
        logit_scale: scalar that multiplies the cosines (already exponentiated): a number, or a tensor of one element.
        logit_bias: scalar added to every logit, or None. It cancels in the softmax, so its gradient is 0; it is taken
            so that every model's output can be passed as it is.

    Returns:
        Scalar in nats, float32 (float64 for float64 features).

    Raises:
        ConfigError: the two sides differ in shape or device, or hold no pair; the scale or the bias is no scalar; the
            gradient itself is differentiated.
    """
    check_pairs("clip_loss", image_features, text_features)
    backend, dtype = parts.choose(image_features, text_features)
    scale = as_scalar("clip_loss", "logit_scale", logit_scale, image_features.device, parts.wide(dtype))
    loss: Tensor = _forward(image_features, text_features, scale, backend, dtype)[0]
    if logit_bias is None:
        return loss
    bias = as_scalar("clip_loss", "logit_bias", logit_bias, loss.device, loss.dtype)
    return loss + 0 * bias.to(loss.dtype).reshape(())


def check_pairs(name: str, image_features: Tensor, text_features: Tensor) -> None:
    """Raise `ConfigError` unless both sides are (B, D), B of 1 or more, on one device; `name` is that of the loss."""
    if image_features.shape != text_features.shape or image_features.ndim != 2 or not len(image_features):
        raise ConfigError(
            f"{name} got image features {tuple(image_features.shape)} and text features "
            f"{tuple(text_features.shape)}; allowed: two of one shape (pairs, features), one pair or more."
        )
    if image_features.device != text_features.device:
        raise ConfigError(
            f"{name} got image features on {image_features.device} and text features on {text_features.device}; "
            "allowed: both on one device. Move one of them."
        )


def as_scalar(name: str, argument: str, value: Tensor | float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`value` as a tensor of one element on `device`, a number in `dtype`; `ConfigError` for any other size."""
    if not isinstance(value, Tensor):
        return torch.full((), value, dtype=dtype, device=device)
    if value.numel() != 1:
        raise ConfigError(
            f"{name} got {argument} of shape {tuple(value.shape)}; allowed: a number, or a tensor of one element."
        )
    return value.to(device)


def refuse_second_derivative(ctx: Any, *gradients: Tensor) -> NoReturn:
    """The autograd formula of the operations that compute gradients."""
    raise ConfigError(
        "A gradient of clip_loss or siglip_loss was differentiated once more; allowed: first derivatives. "
        "For second ones write the loss in torch's operations, with the whole matrix of logits."
    )


Forward = tuple[Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("clip_core::clip_loss", mutates_args=())
def _forward(
    x: Tensor, y: Tensor, scale: Tensor, backend: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.autocast(x.device.type, enabled=False):
        rows, columns = parts.operand(x, dtype), parts.operand(y, dtype)
        own = parts.pair_cosines(rows, columns)
        factor = scale.to(own.dtype).reshape(())
        of_rows, of_columns = parts.contrastive_statistics(rows, columns, own, factor, backend=_named(backend))
        row_loss, column_loss = (parts.log_sum_exp(found, torch.float64) for found in (of_rows, of_columns))
        loss = (row_loss.mean() + column_loss.mean()) / 2
    return loss.to(own.dtype), row_loss, column_loss, own


@_forward.register_fake
def _(x: Tensor, y: Tensor, scale: Tensor, backend: str, dtype: torch.dtype) -> Forward:
    loss = x.new_empty((), dtype=parts.wide(dtype))
    row_loss, column_loss = (x.new_empty(side.shape[0], dtype=torch.float64) for side in (x, y))
    return loss, row_loss, column_loss, loss.new_empty(x.shape[0])


@torch.library.custom_op("clip_core::clip_loss_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    row_loss: Tensor,
    column_loss: Tensor,
    own: Tensor,
    for_x: bool,
    for_y: bool,
    backend: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.autocast(x.device.type, enabled=False):
        found = parts.contrastive_gradients(
            parts.operand(x, dtype),
            parts.operand(y, dtype),
            own,
            scale.to(own.dtype).reshape(()),
            row_loss,
            column_loss,
            for_rows=for_x,
            for_columns=for_y,
            backend=_named(backend),
        )
        factor = gradient.to(own.dtype) / (2 * len(x))
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
    own: Tensor,
    for_x: bool,
    for_y: bool,
    backend: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape if for_x else 0),
        y.new_empty(y.shape if for_y else 0),
        scale.new_empty(scale.shape),
    )


def _named(backend: str) -> Backend:
    return "triton" if backend == "triton" else "torch"


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, str, torch.dtype], output: Forward) -> None:
    *tensors, ctx.backend, ctx.dtype = inputs
    ctx.save_for_backward(*tensors, *output[1:])


def _differentiate(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    for_x, for_y, for_scale = ctx.needs_input_grad[:3]
    dx, dy, dscale = _backward(gradient, *ctx.saved_tensors, for_x, for_y, ctx.backend, ctx.dtype)
    return dx if for_x else None, dy if for_y else None, dscale if for_scale else None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)
_backward.register_autograd(refuse_second_derivative)

"""CLIP's symmetric contrastive loss (Radford et al. 2021, figure 3), which never holds the matrix of logits.

Shapes: B pairs, D features. The forward pass keeps three numbers per pair; the backward pass computes the logits again,
tile by tile. `parts` has what is computed, with rows and columns of different number for a loss over several processes.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.kernels import dispatch, parts
from clip_core.kernels.dispatch import Backend

__all__ = [
    "DTYPES",
    "DTYPE_NAMES",
    "as_scalar",
    "check_pairs",
    "clip_loss",
    "refuse_others",
    "refuse_second_derivative",
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Of the features that the losses take; `DTYPE_NAMES` are what messages call them."""
DTYPE_NAMES = [str(dtype).removeprefix("torch.") for dtype in DTYPES]


def clip_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float, logit_bias: Tensor | float | None = None
) -> Tensor:
    """Mean over both directions of the cross-entropy of each feature with its own partner among all B.

    Memory is linear in B, forward and backward, on every device; the result is the same to the bit for the same input.
    On a CUDA device Triton's programs run where they can, elsewhere plain torch; `use_backend` chooses by hand.

    Logits are float32 whatever the features are, float64 for float64 ones. Features of half precision are multiplied as
    they are and summed in float32. Autocast has a say where Triton's programs run: there float32 features are rounded
    to its dtype before they are multiplied. Each gradient has the dtype of its input. There is no second derivative,
    no forward-mode derivative and no transform of torch.func.

    Args:
        image_features: (B, D), rows of length 1, of float32, bfloat16, float16 or float64 and any strides.
        text_features: (B, D), rows of length 1; row i belongs to image i. Of another dtype than the images', both count
            as the wider one.
        logit_scale: scalar that multiplies the cosines (already exponentiated): a number, or a tensor of one element.
        logit_bias: scalar added to every logit, or None. It cancels in the softmax, so its gradient is 0; it is taken
            so that every model's output can be passed as it is.

    Returns:
        Scalar in nats, float32 (float64 for float64 features).

    Raises:
        ConfigError: the two sides differ in shape or device, hold no pair, or are no tensors of such a dtype; the scale
            or the bias is no real scalar; a derivative that there is not is asked for.
    """
    check_pairs("clip_loss", image_features, text_features)
    backend, dtype = parts.choose(image_features, text_features)
    scale = as_scalar("clip_loss", "logit_scale", logit_scale, image_features.device, parts.wide(dtype))
    refuse_others("clip_loss", image_features, text_features, scale)
    loss: Tensor = _forward(image_features, text_features, scale, backend, dtype)[0]
    if logit_bias is None:
        return loss
    bias = as_scalar("clip_loss", "logit_bias", logit_bias, loss.device, loss.dtype)
    return loss + 0 * bias.to(loss.dtype).reshape(())


def check_pairs(name: str, image_features: Tensor, text_features: Tensor) -> None:
    """Raise `ConfigError` unless both sides are (B, D), B and D of 1 or more, on one device, of a dtype for losses.

    `name` is that of the loss.
    """
    for side, features in (("image", image_features), ("text", text_features)):
        if not isinstance(features, Tensor) or features.layout != torch.strided:
            given = f"of {features.layout}" if isinstance(features, Tensor) else f"as {type(features).__name__}"
            raise ConfigError(
                f"{name} got {side} features {given}; allowed: a dense tensor (pairs, features). A model returns both "
                "sides where it is given both: model(images, tokens)."
            )
        if features.dtype not in DTYPES:
            raise ConfigError(f"{name} got features of {features.dtype}; allowed: {', '.join(DTYPE_NAMES)}.")
    if image_features.shape != text_features.shape or image_features.ndim != 2 or 0 in image_features.shape:
        raise ConfigError(
            f"{name} got image features {tuple(image_features.shape)} and text features "
            f"{tuple(text_features.shape)}; allowed: two of one shape (pairs, features), one of each or more. For a "
            "batch over several processes there is clip_train.loss; for some rows against more columns, "
            "clip_core.kernels.parts."
        )
    if image_features.device != text_features.device:
        raise ConfigError(
            f"{name} got image features on {image_features.device} and text features on {text_features.device}; "
            "allowed: both on one device. Move one of them."
        )


def as_scalar(name: str, argument: str, value: Tensor | float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`value` as a tensor of one element on `device`, a number in `dtype`; `ConfigError` for what is no real scalar."""
    if not isinstance(value, Tensor):
        if not isinstance(value, int | float | torch.SymInt | torch.SymFloat | np.integer | np.floating):
            raise ConfigError(
                f"{name} got {argument} {value!r} ({type(value).__name__}); allowed: a number, or a tensor of one "
                "element."
            )
        return torch.full((), value, dtype=dtype, device=device)
    if value.numel() != 1 or value.is_complex():
        given = f"of {value.dtype}" if value.is_complex() else f"of shape {tuple(value.shape)}"
        raise ConfigError(f"{name} got {argument} {given}; allowed: a number, or a real tensor of one element.")
    return value.to(device)


def refuse_others(name: str, *inputs: Tensor) -> None:
    """Raise `ConfigError` where the loss `name` is asked for derivatives in another way than backward."""
    dispatch.refuse_transforms(
        name,
        *inputs,
        instead="For others write the loss in torch's operations, with the whole matrix of logits: "
        "logits = scale * images @ texts.T.",
    )


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

"""A loss whose gradients were computed with it: autograd only has to multiply them with what comes from above."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clip_core.kernels.contrastive import refuse_second_derivative
from clip_train.loss.share import Found

__all__ = ["Computed"]


class Computed(torch.autograd.Function):
    """Gives a loss that is computed already the gradients that are computed already."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, found: Found) -> Tensor:
        ctx.inputs = [(value.dtype, value.shape) for value in (images, texts, scale, bias)]
        ctx.save_for_backward(*found[1:])
        return found.loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            refuse_second_derivative(ctx)
        given = zip(ctx.saved_tensors, ctx.inputs, ctx.needs_input_grad[:4], strict=True)
        found = [
            (value * gradient).to(dtype).reshape(shape) if needed else None for value, (dtype, shape), needed in given
        ]
        return (*found, None)

"""A teacher's loss over the pairs of all processes: cross-entropy of the student's probabilities under the teacher's.

Shapes: W processes, b pairs on each, B = W * b, D features of the student, T of the teacher. Each process compares its
own images with all texts and its own texts with all images. As in the other losses all communication is in the forward
pass, which computes the gradients, too.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from clip_core.kernels import parts
from clip_train.loss.computed import Computed
from clip_train.loss.exchange import Exchange, is_several
from clip_train.loss.share import Found

__all__ = ["distillation_loss"]


def distillation_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor,
    teacher_images: Tensor,
    teacher_texts: Tensor,
    teacher_scale: Tensor,
    *,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Mean over images and texts of the cross-entropy between the teacher's and the student's choice of a partner.

    As in Hinton et al. (2015) with the temperatures of the two models. Loss and gradients of a process are those of
    `clip_loss`: the mean of both over the processes is that of the whole batch.

    Args:
        image_features: (b, D), rows of length 1; b is the same on every process.
        text_features: (b, D), rows of length 1.
        logit_scale: scalar.
        teacher_images: (b, T), rows of length 1; no gradient goes here.
        teacher_texts: (b, T), rows of length 1.
        teacher_scale: scalar.
        group: as for `clip_loss`.

    Returns:
        Scalar in nats, float32 (float64 for float64 features).
    """
    wide = parts.wide(image_features.dtype)
    with torch.autocast(image_features.device.type, enabled=False):
        taught = [value.detach().to(wide) for value in (teacher_images, teacher_texts, teacher_scale)]
        inputs = [value.to(wide) for value in (image_features, text_features, logit_scale)]
        if not is_several(group):
            return _mean_loss(*inputs, *inputs[:2], *taught, *taught[:2])
        exchange = Exchange.of(group)
        found = _over_processes(exchange, [value.detach() for value in inputs], taught)
        loss: Tensor = Computed.apply(*inputs, torch.zeros_like(inputs[2]), found)
        return loss


def _over_processes(exchange: Exchange, inputs: list[Tensor], taught: list[Tensor]) -> Found:
    """The loss of this process's pairs, and the gradients of the sum of all processes' losses."""
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in (*inputs, *map(exchange.gather, inputs[:2]))]
        gathered = [exchange.gather(value) for value in taught[:2]]
        loss = _mean_loss(*leaves, *taught, *gathered)
        images, texts, scale, all_images, all_texts = torch.autograd.grad(loss, leaves)
    # What the others' rows say of this process's pairs travels home.
    images = images + exchange.sum_of_mine(all_images)
    texts = texts + exchange.sum_of_mine(all_texts)
    return Found(loss.detach(), images, texts, scale, torch.zeros_like(scale))


def _mean_loss(
    images: Tensor,
    texts: Tensor,
    scale: Tensor,
    all_images: Tensor,
    all_texts: Tensor,
    teacher_images: Tensor,
    teacher_texts: Tensor,
    teacher_scale: Tensor,
    all_teacher_images: Tensor,
    all_teacher_texts: Tensor,
) -> Tensor:
    """Of the rows (b, D) of this process with the columns (B, D) of all, in both directions."""
    of_images = _cross_entropy(scale * images @ all_texts.T, teacher_scale * teacher_images @ all_teacher_texts.T)
    of_texts = _cross_entropy(scale * texts @ all_images.T, teacher_scale * teacher_texts @ all_teacher_images.T)
    return (of_images + of_texts) / 2


def _cross_entropy(logits: Tensor, taught: Tensor) -> Tensor:
    """(b, B) of the student and of the teacher -> scalar."""
    return -(taught.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()

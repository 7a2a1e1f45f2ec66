"""What a process brings to a loss over several of them, and what it takes home.

Shapes: b pairs on this process, D features.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from torch import Tensor

from clip_core.kernels import parts

__all__ = ["Found", "Share", "Wanted", "mean_loss"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The pairs of this process, without their history."""

    rows: Tensor
    """(b, D) image features, in the dtype to multiply in."""
    texts: Tensor
    """(b, D) text features, in the dtype in which they travel: their own, or the one to multiply in if that is smaller.
    """
    scale: Tensor
    """Scalar, float32 (float64 for float64 features)."""
    bias: Tensor
    """As the scale."""
    choice: parts.Choice

    @classmethod
    def of(cls, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Share:
        """That of features and scalars as the loss was given them, under the autocast under which it was called."""
        choice = parts.choose(images, texts)
        wide = parts.wide(choice.dtype)
        narrow = choice.dtype if choice.dtype.itemsize < texts.dtype.itemsize else texts.dtype
        return cls(
            parts.operand(images, choice.dtype),
            parts.operand(texts, narrow),
            scale.detach().to(wide).reshape(()),
            bias.detach().to(wide).reshape(()),
            choice,
        )

    def columns(self, texts: Tensor) -> Tensor:
        """Texts that have travelled, in the dtype to multiply in."""
        return parts.operand(texts, self.choice.dtype)


class Wanted(NamedTuple):
    """Which gradients. All processes know the same of those for which they need each other."""

    images: bool
    """By this process."""
    scalars: bool
    """By this process, of the scale or the bias."""
    texts: bool
    """By any process."""
    anything: bool
    """By any process."""

    @property
    def here(self) -> bool:
        """Whether this process has gradients to compute, for itself or for another."""
        return self.images or self.scalars or self.texts


class Found(NamedTuple):
    """The loss of this process's pairs, and the gradients of the sum of all processes' losses."""

    loss: Tensor
    images: Tensor | None
    """(b, D)"""
    texts: Tensor | None
    """(b, D)"""
    scale: Tensor | None
    """Scalar: this process's part of the sum."""
    bias: Tensor | None
    """Scalar: this process's part of the sum."""

    @classmethod
    def without_gradients(cls, loss: Tensor) -> Found:
        """For a process that no other needs and that wants none."""
        return cls(loss, None, None, None, None)

    @classmethod
    def averaged(
        cls,
        loss: Tensor,
        rows: Tensor | None,
        texts: Tensor | None,
        scale: Tensor | None,
        bias: Tensor | None,
        over: int,
    ) -> Found:
        """From gradients of a sum over terms, of which the loss is the mean over `over`; overwrites them."""
        halves = (None if value is None else value.div_(over) for value in (rows, texts, scale, bias))
        return cls(loss, *halves)


def mean_loss(row_loss: Tensor, column_loss: Tensor, share: Share) -> Tensor:
    """Of the losses (b,) of the rows and of the columns of this process, float64; in the dtype of the scale."""
    return ((row_loss.mean() + column_loss.mean()) / 2).to(share.scale.dtype)

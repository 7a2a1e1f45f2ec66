"""What an objective is: losses over the pairs of the whole batch, and losses of single samples, apart from each other.

The two are apart because of accumulation: a contrastive loss needs the features of all pairs at once, and the model
need not hold the activations of all of them. What this room leaves out: how the gradients get to the model
(`gradients`), and the losses themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from clip_train.data.decode import Batch

__all__ = ["Features", "Objective"]


class Features(NamedTuple):
    """What the losses over all pairs compare: the first four fields of a model's output."""

    images: Tensor
    """(B, D), each row of length 1."""
    texts: Tensor
    """(B, D), each row of length 1."""
    scale: Tensor
    """Scalar, exponentiated."""
    bias: Tensor | None
    """Scalar, or None for a model without one."""

    @classmethod
    def of(cls, output: Any) -> Features:
        """Those of a `ClipOutput`, or of an output with more."""
        return cls(output.image_features, output.text_features, output.logit_scale, output.logit_bias)


class Objective(Protocol):
    """Losses by name; their sum is minimised, so each has its weight in it already."""

    def joint(self, features: Features, extra: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses that compare all pairs of this process, and of the others, with each other.

        extra: what `cached` gave, for the same pairs.
        """
        ...

    def cached(self, batch: Batch) -> dict[str, Tensor]:
        """Further tensors, (b, ...) each, that `joint` needs and no gradient goes through: a teacher's features."""
        ...

    def own(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """Losses of single samples, each the mean over the batch: a captioner's."""
        ...

    def weights(self, batches: Sequence[Batch]) -> Tensor | None:
        """How much `own` of each micro-batch counts, (A,); 1 on average over all micro-batches of all processes.

        A mean over the words of a batch is not the mean over all words of a step where batches have more and less of
        them. None: each counts 1. Every process calls this once per step, with its own micro-batches.
        """
        ...

"""What is minimised: losses over the pairs of the whole batch, and losses of single samples, apart from each other.

The two are apart because of accumulation: a contrastive loss needs the features of all pairs at once, and the model
need not hold the activations of all of them. What this room leaves out: how the gradients get to the model
(`gradients`), and the losses themselves (`loss`).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor

from clip_train.config import ObjectiveConfig
from clip_train.data.decode import Batch
from clip_train.loss import ContrastiveLoss

__all__ = ["Contrastive", "Features", "Objective", "build_objective"]


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


class Contrastive:
    """CLIP's or SigLIP's loss and nothing else."""

    def __init__(self, loss: ContrastiveLoss) -> None:
        self._loss = loss

    def joint(self, features: Features, extra: dict[str, Tensor]) -> dict[str, Tensor]:
        """The contrastive loss."""
        return {"contrastive": self._loss(*features)}

    def cached(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def own(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """Nothing."""
        return {}


def build_objective(config: ObjectiveConfig) -> Objective:
    """The objective that the flags ask for."""
    return Contrastive(ContrastiveLoss("siglip" if config.siglip else "clip", config.loss_dist_impl))

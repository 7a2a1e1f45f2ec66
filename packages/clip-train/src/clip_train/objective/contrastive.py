"""CLIP's or SigLIP's loss, alone: what every other objective begins with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from clip_train.data.decode import Batch
from clip_train.loss import ContrastiveLoss
from clip_train.objective.interface import Features

__all__ = ["Contrastive"]


class Contrastive:
    """The contrastive loss and nothing else; `weight` multiplies it."""

    def __init__(self, loss: ContrastiveLoss, weight: float = 1.0) -> None:
        self._loss = loss
        self._weight = weight

    def joint(self, features: Features, extra: dict[str, Tensor]) -> dict[str, Tensor]:
        """The contrastive loss."""
        loss = self._loss(*features)
        return {"contrastive": loss if self._weight == 1 else self._weight * loss}

    def cached(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def own(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def weights(self, batches: Sequence[Batch]) -> Tensor | None:
        """None: there is nothing to weigh."""
        return None

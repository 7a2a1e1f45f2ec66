"""CoCa's second loss (Yu et al. 2022): the words of each caption, predicted from the image and the words before.

Shapes: B captions of S tokens, V words of the vocabulary, A micro-batches of this process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_train.data.decode import Batch
from clip_train.objective.interface import Features, Objective

__all__ = ["Captioning"]


class Captioning:
    """The caption loss beside another objective: the mean over all words of a step that are not padding."""

    def __init__(
        self,
        other: Objective,
        weight: float,
        pad_id: int,
        sum_over_processes: Callable[[Tensor], Tensor] = lambda value: value,
        processes: int = 1,
    ) -> None:
        """`sum_over_processes` adds up a tensor in place, on each of the `processes`, and returns it."""
        self._other = other
        self._weight = weight
        self._pad_id = pad_id
        self._sum = sum_over_processes
        self._processes = processes

    def joint(self, features: Features, extra: dict[str, Tensor]) -> dict[str, Tensor]:
        """Those of the other objective."""
        return self._other.joint(features, extra)

    def cached(self, batch: Batch) -> dict[str, Tensor]:
        """As the other objective."""
        return self._other.cached(batch)

    def own(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy of the words of this batch in nats, times the weight; of a `CocaOutput`."""
        logits, labels = output.caption_logits, output.caption_labels
        # Autocast leaves the logits in bfloat16, in which a sum over the vocabulary loses what is learned from.
        wide = logits.float() if logits.dtype.itemsize < 4 else logits
        total = F.cross_entropy(wide.flatten(0, 1), labels.flatten(), ignore_index=self._pad_id, reduction="sum")
        return {**self._other.own(output, batch), "caption": total * self._weight / self._words(labels).clamp(min=1)}

    def weights(self, batches: Sequence[Batch]) -> Tensor | None:
        """Each micro-batch by its share of the words of the step."""
        counts = torch.stack([self._words(batch.tokens[:, 1:]) for batch in batches]).double()
        whole = self._sum(counts.sum().reshape(1)).clamp(min=1)
        return counts * (len(batches) * self._processes) / whole

    def _words(self, labels: Tensor) -> Tensor:
        return (labels != self._pad_id).sum()

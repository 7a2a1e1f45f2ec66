"""The model as the tasks see it: images and texts go in, normalised float32 features on the CPU come out.

Every task asks the same encoder, so whatever saves work (a store of features, several processes) is here and nowhere
else. Shapes: N rows, D features, C classes. What is not here: reading data sets, scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core import Bundle
from clip_core.zero_shot import Template, class_prompts
from clip_eval.features import ImageFeatures, check_finite, count_truncated, encode_images, encode_texts
from clip_eval.wds import WdsDataset

__all__ = ["Encoder"]


@dataclass(slots=True, kw_only=True)
class Encoder:
    """Encodes with `bundle`, whose model is in evaluation mode."""

    bundle: Bundle
    batch_size: int = 64
    """Images encoded at once; of texts four times as many."""
    workers: int = 1
    """Threads that decode images."""
    progress: bool = False

    def images(self, dataset: WdsDataset) -> ImageFeatures:
        """Features of all images of `dataset`; those that do not decode are left out and named.

        Raises:
            DataError: a shard cannot be read, no image decodes at all, or a feature is not finite.
        """
        return encode_images(
            self.bundle, dataset.samples, batch_size=self.batch_size, workers=self.workers, progress=self.progress
        )

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Features of `texts`, float32 (N, D), rows of length 1, in their order; equal texts have equal rows.

        Raises:
            DataError: a feature is not finite.
        """
        return encode_texts(self.bundle, texts, batch_size=4 * self.batch_size, progress=self.progress)

    def classifier(
        self, classnames: Sequence[str] | Mapping[str, Sequence[str]], templates: Sequence[Template] | None = None
    ) -> Tensor:
        """Classifier weights, float32 (D, C), columns of length 1: the mean of each class's normalised prompts.

        classnames: names for the templates, or the prompts of each class in full (see `clip_core.zero_shot`).
        """
        classes = class_prompts(classnames, templates)
        distinct = {prompt: 0 for prompts in classes for prompt in prompts}
        rows = {prompt: row for row, prompt in enumerate(distinct)}
        features = self.texts(list(rows))
        means = [features[[rows[prompt] for prompt in prompts]].mean(dim=0) for prompts in classes]
        weights = F.normalize(torch.stack(means), dim=-1)
        check_finite(weights, list(classnames), "class name")
        return weights.T.contiguous()

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of `texts` are longer than the model's context."""
        return count_truncated(self.bundle, texts)

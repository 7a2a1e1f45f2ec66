"""Accuracy@k, mean per class recall and the confusion matrix, from scores or features.

Shapes: N images, C classes, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clip_eval.metrics.intervals import Metric, proportion, stratified_mean, wilson
from clip_eval.metrics.ranking import Ranks, rank_rows, similarities

__all__ = ["ClassRecall", "ClassificationScores", "classify", "score_classification"]


@dataclass(frozen=True, slots=True)
class ClassRecall:
    """Recall of one class; the numbers are None for a class that has no image."""

    n: int
    recall: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ClassificationScores:
    """All that is known about one classification run."""

    metrics: dict[str, Metric]
    """`acc1`, `acc5` (from five classes on) and `mean_per_class_recall`."""
    tie_share: float
    per_class: list[ClassRecall]
    """C entries."""
    confusion: Tensor
    """int64 (C, C): row the true class, column the predicted one."""
    predictions: Tensor
    """int64 (N,): the class with the highest score, the first of them in a tie."""


def classify(features: Tensor, weights: Tensor, labels: Tensor, *, chunk: int = 4096) -> ClassificationScores:
    """Scores normalised image features (N, D) with classifier weights (D, C) against labels (N,), chunk by chunk."""
    rows, predictions = [], []
    for start in range(0, len(features), chunk):
        scores = similarities(features[start : start + chunk], weights.T)
        rows.append(_ranks(scores, labels[start : start + chunk]))
        predictions.append(scores.argmax(dim=1))
    return _summarise(Ranks.join(rows), torch.cat(predictions), labels, weights.shape[1])


def score_classification(scores: Tensor, labels: Tensor) -> ClassificationScores:
    """As `classify`, from finished scores (N, C); only their order within a row counts."""
    return _summarise(_ranks(scores, labels), scores.argmax(dim=1), labels, scores.shape[1])


def _ranks(scores: Tensor, labels: Tensor) -> Ranks:
    return rank_rows(scores, torch.arange(len(labels)), labels)


def _summarise(ranks: Ranks, predictions: Tensor, labels: Tensor, classes: int) -> ClassificationScores:
    metrics = {}
    for k in (1, 5):
        if k <= classes:
            hits = ranks.hits(k)
            metrics[f"acc{k}"] = proportion(hits.expected, hits.optimistic, hits.pessimistic)
    top = ranks.hits(1)
    counts = torch.bincount(labels, minlength=classes)
    recalls = [_class_means(part, labels, counts) for part in (top.expected, top.optimistic, top.pessimistic)]
    # A class without images has no recall; like scikit-learn's balanced accuracy, the mean leaves it out.
    seen = counts > 0
    metrics["mean_per_class_recall"] = stratified_mean(
        recalls[0][seen], counts[seen], recalls[1][seen], recalls[2][seen]
    )
    per_class = [
        ClassRecall(n, recall, *wilson(recall, n)) if n else ClassRecall(0, None, None, None)
        for n, recall in zip(counts.tolist(), recalls[0].tolist(), strict=True)
    ]
    confusion = torch.bincount(labels * classes + predictions, minlength=classes**2).view(classes, classes)
    return ClassificationScores(metrics, ranks.tie_share(), per_class, confusion, predictions)


def _class_means(values: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, labels, values)
    return (sums / counts.clamp(min=1)).clamp(0, 1)

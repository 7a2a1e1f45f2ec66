"""Accuracy@k, mean per class recall, macro F1 and the confusion matrix, from scores or features.

A tie for the best class is broken by lot: every number is the expected one, and the bounds say what luck could make of
it. Shapes: N images, C classes, D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_eval.metrics.calibration import Confidence, confidence
from clip_eval.metrics.intervals import Metric, proportion, stratified_mean, wilson
from clip_eval.metrics.ranking import Hits, Ranks, rank_rows, similarities

__all__ = ["ClassRecall", "ClassificationScores", "classify", "macro_f1", "score_classification"]

_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class ClassRecall:
    """Recall of one class; the numbers are None for a class that has no image."""

    n: int
    recall: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationScores:
    """All that is known about one classification run."""

    metrics: dict[str, Metric]
    """`acc1`, `acc5` (from five classes on) and `mean_per_class_recall`."""
    hits: dict[int, Hits]
    """Per k of the accuracies, what each image scored."""
    tie_share: float
    per_class: list[ClassRecall]
    """C entries."""
    confusion: Tensor
    """int64 (C, C): row the true class, column the predicted one."""
    predictions: Tensor
    """int64 (N,): the class with the highest score, the first of them in a tie."""
    false_positives: Hits
    """Per class, float64 (C,): images of other classes that it wins; `optimistic` is the smallest number."""
    confidence: Confidence | None
    """How sure the model was of each prediction; None where no logit scale was given."""

    def recall_shares(self, labels: Tensor) -> Tensor:
        """float64 (N,): each image's part in the mean per class recall, which is the mean of these values.

        An image's part is that recall plus N times its pull on it (the jackknife's pseudo-value), so that differences
        between two models can be tested image by image.
        """
        counts = torch.bincount(labels, minlength=len(self.per_class)).double()
        recalls = _class_means(self.hits[1].expected, labels, counts)
        weight = len(labels) / (counts[labels] * int((counts > 0).sum()))
        return self.metrics["mean_per_class_recall"].value + weight * (self.hits[1].expected - recalls[labels])


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What one block of rows adds."""

    ranks: Ranks
    predictions: Tensor
    false_positives: tuple[Tensor, Tensor, Tensor]
    confidence: Confidence | None


def classify(
    features: Tensor, weights: Tensor, labels: Tensor, *, logit_scale: float | None = None, chunk: int = 4096
) -> ClassificationScores:
    """Scores normalised image features (N, D) with classifier weights (D, C) against labels (N,), chunk by chunk.

    logit_scale: the model's own factor from cosines to logits, for `confidence`. Raises `DataError` for NaN.
    """
    parts = [
        _score(similarities(features[start : start + chunk], weights.T), labels[start : start + chunk], logit_scale)
        for start in range(0, len(features), chunk)
    ]
    return _summarise(parts, labels, weights.shape[1])


def score_classification(
    scores: Tensor, labels: Tensor, *, logit_scale: float | None = None, chunk: int = 4096
) -> ClassificationScores:
    """As `classify`, from finished scores (N, C); without a logit scale only their order within a row counts."""
    parts = [
        _score(scores[start : start + chunk], labels[start : start + chunk], logit_scale)
        for start in range(0, len(scores), chunk)
    ]
    return _summarise(parts, labels, scores.shape[1])


def _score(scores: Tensor, labels: Tensor, logit_scale: float | None) -> _Chunk:
    ranks = rank_rows(scores, torch.arange(len(labels)), labels)
    best = scores == scores.amax(dim=1, keepdim=True)
    tied = best.sum(dim=1, keepdim=True)
    wrong = best.clone()
    wrong[torch.arange(len(labels)), labels] = False
    alone = wrong & (tied == 1)
    false_positives = (wrong.double() / tied).sum(0), alone.sum(0).double(), wrong.sum(0).double()
    sure = None if logit_scale is None else confidence(scores, ranks.hits(1).expected, logit_scale)
    return _Chunk(ranks, scores.argmax(dim=1), false_positives, sure)


def _summarise(parts: list[_Chunk], labels: Tensor, classes: int) -> ClassificationScores:
    ranks = Ranks.join([part.ranks for part in parts])
    predictions = torch.cat([part.predictions for part in parts])
    hits = {k: ranks.hits(k) for k in (1, 5) if k <= classes}
    metrics = {f"acc{k}": proportion(hit.expected, hit.optimistic, hit.pessimistic) for k, hit in hits.items()}
    counts = torch.bincount(labels, minlength=classes)
    recalls = [
        _class_means(part, labels, counts) for part in (hits[1].expected, hits[1].optimistic, hits[1].pessimistic)
    ]
    # A class without images has no recall; like scikit-learn's balanced accuracy, the mean leaves it out.
    seen = counts > 0
    metrics["mean_per_class_recall"] = stratified_mean(
        recalls[0][seen], counts[seen], recalls[1][seen], recalls[2][seen]
    )
    per_class = [
        ClassRecall(n, recall, *wilson(recall, n)) if n else ClassRecall(0, None, None, None)
        for n, recall in zip(counts.tolist(), recalls[0].tolist(), strict=True)
    ]
    false = torch.stack([torch.stack(part.false_positives) for part in parts]).sum(0)
    sure = [part.confidence for part in parts if part.confidence is not None]
    return ClassificationScores(
        metrics=metrics,
        hits=hits,
        tie_share=ranks.tie_share(),
        per_class=per_class,
        confusion=torch.bincount(labels * classes + predictions, minlength=classes**2).view(classes, classes),
        predictions=predictions,
        false_positives=Hits(false[0], false[1], false[2]),
        confidence=Confidence.join(sure) if sure else None,
    )


def macro_f1(scores: ClassificationScores, labels: Tensor) -> Metric:
    """The plain mean over the classes that have images of F1 = 2 TP / (2 TP + FP + FN), as WILDS takes it.

    Equal to scikit-learn's `f1_score(average="macro", labels=<those that occur>)`. With ties, the counts are expected
    ones; the bounds hold for every way to break them, but no single way need reach them. Interval: normal, by the pull
    of each image on the mean (the delta method on the confusion matrix); one more hit, miss and false alarm in each
    class keep a class without errors from counting as known for certain.
    """
    seen = torch.bincount(labels, minlength=len(scores.per_class)) > 0
    counts = torch.bincount(labels, minlength=len(seen)).double()

    def mean(hits: Tensor, false_positives: Tensor) -> float:
        true = torch.zeros(len(seen), dtype=torch.float64).index_add_(0, labels, hits)
        f1 = 2 * true / (counts + true + false_positives).clamp(min=1e-300)
        return float(f1[seen].mean())

    hits, false = scores.hits[1], scores.false_positives
    value = mean(hits.expected, false.expected)
    half = _Z * math.sqrt(_f1_variance(scores.confusion.double(), seen))
    return Metric(
        value=value,
        n=len(labels),
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        interval="normal, delta method on the confusion matrix",
        optimistic=mean(hits.optimistic, false.optimistic),
        pessimistic=mean(hits.pessimistic, false.pessimistic),
    )


def _f1_variance(confusion: Tensor, seen: Tensor) -> float:
    """Variance of the macro F1 when images are drawn anew: the squares of the pull of each, added up."""
    true = confusion.diagonal() + 1
    errors = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal() + 2
    share = seen.double() / ((2 * true + errors) ** 2 * int(seen.sum()))
    hit, miss = 2 * errors * share, -2 * true * share
    pull = miss[:, None] + miss[None, :]
    pull.diagonal().copy_(hit)
    added = seen * (hit**2 + 2 * miss**2)
    return float((confusion * pull**2).sum() + added.sum())


def _class_means(values: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, labels, values)
    return (sums / counts.clamp(min=1)).clamp(0, 1)

"""Average precision of each class and their mean, for images that show several classes at once.

Precision at a positive is the share of positives among it and all images that score higher; a class's average precision
is the mean of that over its positives. Ties stand in random order: the numbers are expected values, and the bounds are
those of the luckiest and the unluckiest order, so nothing depends on the order of the images. Without ties they equal
scikit-learn's and torchmetrics'; with ties those two take a tied group as one step, which is another rule, and
CLIP_benchmark's function takes the order in which a sort happens to leave the group.

Shapes: N images, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_core.errors import DataError
from clip_eval.metrics.intervals import Metric

__all__ = ["ClassPrecision", "MultilabelScores", "score_multilabel"]

_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class ClassPrecision:
    """Average precision of one class; the numbers are None for a class without positives."""

    positives: int
    average_precision: float | None
    low: float | None
    high: float | None
    optimistic: float | None
    pessimistic: float | None


@dataclass(frozen=True, slots=True)
class MultilabelScores:
    """All that is known about one multilabel run."""

    mean: Metric
    """Over all C classes; one without positives counts as 0, as in CLIP_benchmark, scikit-learn and torchmetrics."""
    per_class: list[ClassPrecision]
    shares: Tensor
    """float64 (N,): each image's part in the mean, which is the mean of these values.

    An image's part is the mean plus N times its pull on it (the jackknife's pseudo-value), so that differences between
    two models can be tested image by image."""
    tie_share: float
    """Share of the positives that score the same as a negative of their class."""


def score_multilabel(scores: Tensor, present: Tensor) -> MultilabelScores:
    """From scores (N, C), of which only the order within a column counts, and bool `present` (N, C).

    Interval: normal. The variance is the infinitesimal jackknife's over images (the squares of their pulls, added up),
    plus (1 / (P + 2))**2 for each class of P positives, so that one without an error is not taken as known for certain.

    Raises:
        DataError: a score is NaN.
        ValueError: shapes that differ, or no image.
    """
    if scores.shape != present.shape or not len(scores):
        raise ValueError(f"scores {tuple(scores.shape)} and presence {tuple(present.shape)} must be equal, not empty")
    bad = int(scores.isnan().any(dim=1).sum())
    if bad:
        raise DataError(f"{bad} of {len(scores)} images have a score that is NaN. Check the features and the weights.")
    columns = [_column(scores[:, place], present[:, place]) for place in range(scores.shape[1])]
    classes, positives = len(columns), int(present.sum())
    value, optimistic, pessimistic = (sum(column.values[part] for column in columns) / classes for part in range(3))
    pulls = torch.stack([column.pulls for column in columns]).sum(dim=0) / classes
    added = sum(column.added for column in columns) / classes**2
    half = _Z * math.sqrt(float((pulls**2).sum()) + added)
    mean = Metric(
        value=value,
        n=len(scores),
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        interval="normal, infinitesimal jackknife over images",
        optimistic=optimistic,
        pessimistic=pessimistic,
    )
    tied = sum(column.tied for column in columns)
    return MultilabelScores(
        mean, [column.summary() for column in columns], value + len(scores) * pulls, tied / max(1, positives)
    )


@dataclass(frozen=True, slots=True)
class _Column:
    """One class."""

    positives: int
    values: tuple[float, float, float]
    """Expected, optimistic, pessimistic."""
    pulls: Tensor
    """float64 (N,): the derivative of the average precision by the weight of each image; they add up to 0."""
    tied: int

    @property
    def added(self) -> float:
        """Variance besides the pulls'."""
        return (1 / (self.positives + 2)) ** 2 if self.positives else 0.0

    def summary(self) -> ClassPrecision:
        if not self.positives:
            return ClassPrecision(0, None, None, None, None, None)
        value, optimistic, pessimistic = self.values
        half = _Z * math.sqrt(float((self.pulls**2).sum()) + self.added)
        return ClassPrecision(
            self.positives, value, max(0.0, value - half), min(1.0, value + half), optimistic, pessimistic
        )


def _column(scores: Tensor, present: Tensor) -> _Column:
    n, positives = len(scores), int(present.sum())
    if not positives:
        return _Column(0, (0.0, 0.0, 0.0), torch.zeros(n, dtype=torch.float64), 0)
    # Groups of equal scores, best first: how many images and positives are in them and before them.
    _, group = torch.unique(-scores, return_inverse=True)
    size = torch.bincount(group).double()
    hits = torch.bincount(group, weights=present.double(), minlength=len(size))
    before, hits_before = size.cumsum(0) - size, hits.cumsum(0) - hits
    owner = torch.arange(len(size)).repeat_interleave(size.long())
    place = torch.arange(1, n + 1, dtype=torch.float64)
    inside = place - before[owner]
    # Expected: a place of the group holds a positive with chance hits / size; of the inside - 1 places before it in the
    # group, each holds one of the other hits - 1 positives with chance (hits - 1) / (size - 1).
    others = (inside - 1) * ((hits - 1) / (size - 1).clamp(min=1)).clamp(min=0)[owner]
    expected = (hits / size)[owner] * (hits_before[owner] + 1 + others) / place
    # Lucky: the group's positives stand first. Unlucky: they stand last.
    lucky = torch.where(inside <= hits[owner], (hits_before[owner] + inside) / place, 0)
    late = inside - (size - hits)[owner]
    unlucky = torch.where(late >= 1, (hits_before[owner] + late) / place, 0)
    values = tuple(min(1.0, float(part.sum()) / positives) for part in (expected, lucky, unlucky))
    tied = int(hits[(hits > 0) & (hits < size)].sum())
    return _Column(positives, (values[0], values[1], values[2]), _pulls(group, size, hits, present), tied)


def _pulls(group: Tensor, size: Tensor, hits: Tensor, present: Tensor) -> Tensor:
    """Derivatives of sum(w y A/B) / sum(w y) by the weights w at 1; A/B is the precision at the end of a group."""
    positives = hits.sum()
    all_above, hits_above = size.cumsum(0), hits.cumsum(0)
    precision = hits_above / all_above
    value = (hits * precision).sum() / positives
    # A heavier image counts in A (a positive) and in B of every positive that stands no higher than itself.
    in_hits = (hits / all_above).flip(0).cumsum(0).flip(0)
    in_all = (hits * hits_above / all_above**2).flip(0).cumsum(0).flip(0)
    truth = present.double()
    return (truth * (precision[group] - value + in_hits[group]) - in_all[group]) / positives

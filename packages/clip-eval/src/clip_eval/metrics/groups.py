"""Accuracy by group of images (region, income, hospital), its mean and its worst group, as WILDS and DataComp have it.

Shapes: N images, G groups. What is not here: which column of a data set's metadata makes the groups
(`clip_eval.tasks.groups`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from clip_core.errors import DataError
from clip_eval.metrics.intervals import Metric, proportion, wilson
from clip_eval.metrics.ranking import Hits

__all__ = ["GroupScore", "group_numbers", "score_groups", "worst_group"]


@dataclass(frozen=True, slots=True)
class GroupScore:
    """One group that has images."""

    group: int
    score: Metric
    """Mean of its images' hits."""
    optimistic: float
    pessimistic: float


def score_groups(hits: Hits, groups: Tensor) -> list[GroupScore]:
    """The mean of the hits (N,) in each of `groups` (N,) int64 that occurs, by ascending group."""
    if len(groups) != len(hits.expected):
        raise ValueError(f"{len(hits.expected)} images, but groups for {len(groups)}")
    found = []
    for group in torch.unique(groups).tolist():
        parts = [part[groups == group] for part in (hits.expected, hits.optimistic, hits.pessimistic)]
        found.append(GroupScore(int(group), proportion(*parts), float(parts[1].mean()), float(parts[2].mean())))
    return found


def worst_group(scores: list[GroupScore], *, left_out: Collection[int] = ()) -> tuple[Metric, int]:
    """The lowest of the groups' means, and the group that has it (the first of several).

    left_out: groups that do not count. The interval is one for the lowest of the true means: its upper limit is the
    lowest of the groups' limits, each taken at 97.5 % for all G groups together (Bonferroni), because the lowest of
    many measured means lies below the lowest true one; its lower limit is the lowest of the groups' lower limits. n
    counts the images of all groups that count. Raises `DataError` when no group is left.
    """
    kept = [entry for entry in scores if entry.group not in left_out]
    if not kept:
        raise DataError(f"Of the groups {[entry.group for entry in scores]} none is left to be the worst.")
    worst = min(kept, key=lambda entry: entry.score.value)
    z = NormalDist().inv_cdf(1 - 0.025 / len(kept))
    high = min(wilson(entry.score.value, entry.score.n, z=z)[1] for entry in kept)
    metric = Metric(
        value=worst.score.value,
        n=sum(entry.score.n for entry in kept),
        low=min(entry.score.low for entry in kept),
        high=max(high, worst.score.value),
        interval=f"Wilson in each of {len(kept)} groups, the upper limit for all of them together",
        optimistic=min(entry.optimistic for entry in kept),
        pessimistic=min(entry.pessimistic for entry in kept),
    )
    return metric, worst.group


def group_numbers(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Groups by the values of several columns together, int64 (N, F) -> numbers (N,) and their values (G, F).

    WILDS' order: the first column varies fastest.
    """
    values, numbers = torch.unique(columns.flip(1), dim=0, return_inverse=True)
    return numbers, values.flip(1)

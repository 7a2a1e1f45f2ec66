"""Jaccard index of the images that a model associates with a cue (WinoGAViL, Bitton et al. 2022).

The model may name as many candidates as are right, n, and takes the nearest; with h of them right the index is
h / (2 n - h). Where ties leave open which are taken, it is the mean over a draw by lot. What is not here: similarities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clip_core.errors import DataError

__all__ = ["Jaccard", "score_association"]


@dataclass(frozen=True, slots=True)
class Jaccard:
    """The index of one riddle, in [0, 1]."""

    expected: float
    optimistic: float
    pessimistic: float
    tied: bool
    """Whether a right and a wrong candidate tie for the last places, so that the lot decides."""


def score_association(scores: Sequence[float], right: Sequence[bool]) -> Jaccard:
    """The index for candidates with these similarities; raises `DataError` for one that is NaN, or none right."""
    count = sum(right)
    if not 0 < count <= len(scores) or len(right) != len(scores):
        raise DataError(f"{len(scores)} candidates of which {count} are right: no index can be computed.")
    if any(math.isnan(score) for score in scores):
        raise DataError("Some similarities are NaN, and no order holds among them. Check the features.")
    last = sorted(scores, reverse=True)[count - 1]
    sure = sum(fits for score, fits in zip(scores, right, strict=True) if score > last)
    places = count - sum(score > last for score in scores)
    beside = sum(score == last for score in scores)
    good = sum(fits for score, fits in zip(scores, right, strict=True) if score == last)
    least, most = max(0, places - (beside - good)), min(good, places)
    ways = {hits: math.comb(good, hits) * math.comb(beside - good, places - hits) for hits in range(least, most + 1)}
    expected = sum(number * _index(sure + hits, count) for hits, number in ways.items()) / math.comb(beside, places)
    return Jaccard(expected, _index(sure + most, count), _index(sure + least, count), least < most)


def _index(hits: int, count: int) -> float:
    return hits / (2 * count - hits)

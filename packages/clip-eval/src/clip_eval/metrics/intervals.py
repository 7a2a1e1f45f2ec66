"""95 % intervals: what a score measured on N samples says about the score on endlessly many like them.

They cover the choice of the test images only; not the choice of the classes, of the gallery or of the training run.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Metric", "median", "proportion", "stratified_mean", "wilson"]

_Z = 1.959963984540054  # the 97.5 % point of the normal distribution
_LEAST_FOR_MEDIAN = 6  # 1 - 2 / 2**n is 0.95 or more from here on


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of a record, with everything that is needed to read it."""

    value: float
    """With ties, the expected value when they are broken by lot."""
    n: int
    """How many queries it is the mean (or the median) of."""
    low: float
    high: float
    interval: str
    """How `low` and `high` were made; both are 95 % limits, unless it says that there were too few queries."""
    optimistic: float | None = None
    """The value if every tie were broken in the model's favour."""
    pessimistic: float | None = None
    """The value if every tie were broken against the model."""

    def to_json(self) -> dict[str, Any]:
        """Plain types for strict JSON."""
        return asdict(self)


def wilson(share: float, n: float, *, z: float = _Z) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of `n` independent trials, 95 % unless `z` says otherwise.

    It stays inside [0, 1].
    """
    if n <= 0:
        raise ValueError(f"n={n}: an interval needs at least one trial")
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At the ends the limits are exact; rounding must not push them past the value.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def proportion(hits: Tensor, optimistic: Tensor, pessimistic: Tensor, clusters: Tensor | None = None) -> Metric:
    """The mean of `hits` (N,), values in [0, 1], with Wilson's interval.

    clusters: (N,) int64, equal for queries that share an image. They are not independent, so the interval is that of
    as many independent queries as would give the variance measured between the images.
    """
    hits = hits.double()
    n, value = len(hits), min(1.0, max(0.0, float(hits.mean())))
    effective, label = float(n), "Wilson"
    if clusters is not None and len(torch.unique(clusters)) < n:
        effective = _effective(hits, clusters)
        label = f"Wilson, queries clustered by image (effective N {effective:.0f})"
    low, high = wilson(value, effective)
    return Metric(
        value=value,
        n=n,
        low=low,
        high=high,
        interval=label,
        optimistic=float(optimistic.double().mean()),
        pessimistic=float(pessimistic.double().mean()),
    )


def _effective(hits: Tensor, clusters: Tensor) -> float:
    """How many independent queries would give the variance of the mean of `hits` that its clusters give."""
    groups, index = torch.unique(clusters, return_inverse=True)
    n, value = len(hits), min(1.0, max(0.0, float(hits.mean())))
    sums = torch.zeros(len(groups), dtype=torch.float64).index_add_(0, index, hits - value)
    spread = len(groups) / max(1, len(groups) - 1) * float((sums**2).sum()) / n**2
    return min(float(n), value * (1 - value) / spread) if spread > 0 else float(len(groups))


def stratified_mean(values: Tensor, counts: Tensor, optimistic: Tensor, pessimistic: Tensor) -> Metric:
    """The plain mean of per-class shares `values` (C,), each of `counts` (C,) samples, all counts above 0.

    Interval: normal, the classes' binomial variances added up. A class's variance is taken at (hits + 1) / (n + 2),
    so that a class without errors does not count as known for certain.
    """
    values, counts = values.double(), counts.double()
    value = float(values.mean())
    smooth = (values * counts + 1) / (counts + 2)
    half = _Z * math.sqrt(float((smooth * (1 - smooth) / counts).sum())) / len(values)
    return Metric(
        value=value,
        n=int(counts.sum()),
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        interval="normal, stratified by class",
        optimistic=float(optimistic.double().mean()),
        pessimistic=float(pessimistic.double().mean()),
    )


def median(ranks: Tensor, optimistic: Tensor, pessimistic: Tensor, clusters: Tensor | None = None) -> Metric:
    """The median of `ranks` (N,), between the order statistics whose places the binomial distribution gives.

    clusters: as for `proportion`; the places are those of the share of queries up to the median, whose variance is
    measured between the images. Below six independent queries not even the smallest and the largest make a 95 %
    interval; they are given all the same, and `interval` says so.
    """
    ordered = ranks.double().sort().values
    n = len(ordered)
    value, effective, label = float(ordered.quantile(0.5)), float(n), "order statistics"
    if clusters is not None and len(torch.unique(clusters)) < n:
        effective = _effective((ranks.double() <= value).double(), clusters)
        label = f"order statistics, queries clustered by image (effective N {effective:.0f})"
    half = _Z * n / (2 * math.sqrt(effective))
    # floor(n/2 - half) and its mirror image count from 1, the places in `ordered` from 0.
    low = max(0, math.floor(n / 2 - half) - 1)
    if effective < _LEAST_FOR_MEDIAN:
        low, label = 0, f"smallest and largest: {effective:.1f} independent queries are too few for 95 %"
    return Metric(
        value=value,
        n=n,
        low=float(ordered[low]),
        high=float(ordered[n - 1 - low]),
        interval=label,
        optimistic=float(optimistic.double().quantile(0.5)),
        pessimistic=float(pessimistic.double().quantile(0.5)),
    )

"""Whether two models differ on one data set: tests on what each scored on the same queries, and on numbers alone.

Shapes: Q queries, C clusters (images with all their queries), K distinct clusters, R resamples. Differences are always
"second minus first". What is not here: which records may be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Paired", "Unpaired", "compare_outcomes", "compare_scores", "exact_mcnemar", "holm", "resampled_differences"]

_Z = 1.959963984540054  # the 97.5 % point of the normal distribution
_FEW_KINDS = 2048
_ROWS_AT_ONCE = 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Two models on the same queries."""

    difference: float
    """Mean of the second minus mean of the first."""
    low: float
    high: float
    """95 % interval of the difference: percentiles of the bootstrap over clusters."""
    p: float
    """Two-sided: of `test`."""
    test: str
    """`McNemar, exact` where every cluster is one query and every outcome 0 or 1, else `paired bootstrap`."""
    clusters: int
    better: int
    """Clusters on which the second scores higher."""
    worse: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaired:
    """Two numbers with intervals, as if they came from different images; wider than the truth where they did not."""

    difference: float
    low: float
    high: float
    p: float


def compare_outcomes(
    first: Tensor, second: Tensor, clusters: Tensor, *, resamples: int = 2000, seed: int = 0
) -> Paired:
    """Compares what two models scored on the same queries.

    Args:
        first, second: (Q,) the share of each query in the mean.
        clusters: int64 (Q,), equal for queries of one image, which are drawn together.
        resamples: draws of the bootstrap; the smallest p that it can give is 1 / (resamples + 1).
        seed: of the draws.
    """
    if not first.shape == second.shape == clusters.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"{first.shape}, {second.shape}, {clusters.shape}: one value and one cluster for each query")
    difference = second.double() - first.double()
    sums, counts = _by_cluster(difference, clusters)
    observed = float(difference.mean())
    draws = resampled_differences(sums, counts, resamples=resamples, seed=seed)
    low, high = np.quantile(draws, (0.025, 0.975))
    better, worse = int((sums > 0).sum()), int((sums < 0).sum())
    plain = len(sums) == len(first) and all(bool(((values == 0) | (values == 1)).all()) for values in (first, second))
    if plain:
        p, test = exact_mcnemar(better, worse), "McNemar, exact"
    else:
        # Under "no difference" the draws spread around 0 as they do around what was observed. Rounding must not make
        # a draw that equals the observation fall short of it.
        far = np.abs(draws - observed) >= abs(observed) * (1 - 1e-9)
        p, test = float((1 + far.sum()) / (1 + resamples)), "paired bootstrap"
    return Paired(
        difference=observed,
        low=float(min(low, observed)),
        high=float(max(high, observed)),
        p=p,
        test=test,
        clusters=len(sums),
        better=better,
        worse=worse,
    )


def exact_mcnemar(better: int, worse: int) -> float:
    """McNemar's test (1947) with binomial probabilities: two-sided p of `better` against `worse` where models differ.

    It is the sign test of the queries that only one of the two models gets right. 1.0 where they never differ.
    """
    n, least = better + worse, min(better, worse)
    if n == 0:
        return 1.0
    places = torch.arange(least + 1, dtype=torch.float64)
    total = torch.tensor(float(n), dtype=torch.float64)
    logs = torch.lgamma(total + 1) - torch.lgamma(places + 1) - torch.lgamma(total - places + 1)
    return min(1.0, 2 * math.exp(float(torch.logsumexp(logs, 0)) - n * math.log(2)))


def _by_cluster(difference: Tensor, clusters: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the differences, float64 (C,), and number of queries, int64 (C,), of each cluster."""
    groups, index = torch.unique(clusters, return_inverse=True)
    sums = torch.zeros(len(groups), dtype=torch.float64).index_add_(0, index, difference)
    return sums, torch.bincount(index, minlength=len(groups))


def resampled_differences(sums: Tensor, counts: Tensor, *, resamples: int, seed: int) -> np.ndarray:
    """Mean differences of R bootstrap samples of the clusters, float64 (R,).

    Drawing C clusters with replacement is a multinomial draw of how often each kind of cluster comes. Clusters of equal
    sum and count are one kind, and 0/1 outcomes have few kinds, so the size of the data set hardly matters. Where the
    kinds are many, clusters are drawn one by one, in blocks of bounded memory.
    """
    generator = np.random.default_rng(seed)
    pairs = np.stack([sums.numpy(), counts.numpy().astype(np.float64)])
    kinds, often = np.unique(pairs, axis=1, return_counts=True)
    clusters = pairs.shape[1]
    if kinds.shape[1] <= _FEW_KINDS:
        drawn = generator.multinomial(clusters, often / clusters, size=resamples)
        totals = drawn @ kinds.T
        return np.asarray(totals[:, 0] / totals[:, 1])
    parts = []
    step = max(1, _ROWS_AT_ONCE // clusters)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        chosen = generator.integers(0, clusters, size=(rows, clusters), dtype=np.int32)
        parts.append(pairs[0][chosen].sum(axis=1) / pairs[1][chosen].sum(axis=1))
    return np.concatenate(parts)


def compare_scores(first: tuple[float, float, float], second: tuple[float, float, float]) -> Unpaired:
    """Compares two numbers, each (value, low, high) with its 95 % limits, as if they were independent.

    The interval joins the limits on the sides that face each other (Newcombe 1998, method 10; Zou and Donner 2008); p
    is that of the normal distribution for the same widths, so it is below 0.05 where the interval leaves 0 out.
    """
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    difference = b - a
    down, up = math.hypot(b - b_low, a_high - a), math.hypot(b_high - b, a - a_low)
    towards_zero = down if difference > 0 else up
    if difference == 0:
        p = 1.0
    else:
        p = math.erfc(_Z * abs(difference) / towards_zero / math.sqrt(2)) if towards_zero > 0 else 0.0
    return Unpaired(difference=difference, low=difference - down, high=difference + up, p=p)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjustment (1979) of the p of several tests, in their order: below a level, the test is significant at it
    though as many were made.
    """
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted

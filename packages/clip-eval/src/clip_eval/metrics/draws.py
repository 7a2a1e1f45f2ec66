"""One number from several random draws (seeds of a few-shot probe): its mean, and an interval that knows of both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from clip_eval.metrics.intervals import Metric

__all__ = ["over_draws", "student"]

_Z = 1.959963984540054


def over_draws(metrics: Sequence[Metric]) -> Metric:
    """The mean of one metric over S draws, measured on the same images each time.

    Interval: the mean of the draws' own limits, which say what the choice of the images can do, widened by Student's t
    for what the S draws can do; the two are taken as independent. A single draw keeps its own interval.
    """
    if len(metrics) == 1:
        return metrics[0]
    values = [metric.value for metric in metrics]
    value = statistics.fmean(values)
    drawn = student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    below = statistics.fmean(metric.value - metric.low for metric in metrics)
    above = statistics.fmean(metric.high - metric.value for metric in metrics)
    best, worst = (
        statistics.fmean(
            metric.value if bound is None else bound for metric, bound in zip(metrics, bounds, strict=True)
        )
        for bounds in ([metric.optimistic for metric in metrics], [metric.pessimistic for metric in metrics])
    )
    return Metric(
        value=value,
        n=metrics[0].n,
        low=max(0.0, value - math.hypot(below, drawn)),
        high=min(1.0, value + math.hypot(above, drawn)),
        interval=f"{metrics[0].interval}; with Student's t over {len(metrics)} draws",
        optimistic=best,
        pessimistic=worst,
    )


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t with 1 or more degrees of freedom, right to 0.2 % (Cornish and Fisher 1937)."""
    if freedom < 5:
        return (12.7062, 4.3027, 3.1824, 2.7764)[freedom - 1]
    z, n = _Z, freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(n) ** power for power, term in enumerate(terms, 1))

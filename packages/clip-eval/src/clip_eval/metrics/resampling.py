"""95 % intervals by the bootstrap (Efron 1979), for means of values that are neither hits nor misses.

Units are drawn with replacement and the mean is taken again; the interval lies between the 2.5 % and the 97.5 % point
of what comes out. The draw is always the same. What is not here: shares (`intervals` has Wilson's), paired tests.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from clip_eval.metrics.intervals import Metric

__all__ = ["RESAMPLES", "resample", "resampled_mean"]

RESAMPLES = 2000
_SEED = 0


def resample(count: int, statistic: Callable[[Tensor], float], *, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The interval of `statistic`, which gets int64 (count,): how often each of the `count` units was drawn."""
    random = np.random.default_rng(_SEED)
    values = [
        statistic(torch.from_numpy(np.bincount(random.integers(count, size=count), minlength=count)))
        for _ in range(resamples)
    ]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def resampled_mean(values: Tensor, optimistic: Tensor | None = None, pessimistic: Tensor | None = None) -> Metric:
    """The mean of `values` (N,), each from one unit of its own; the bounds are means as well, without them no ties."""
    values = values.double()
    mean = float(values.mean())
    low, high = resample(len(values), lambda counts: float(counts.double() @ values) / len(values))
    return Metric(
        value=mean,
        n=len(values),
        # With one unit, or with equal ones, rounding must not push the limits past the value.
        low=min(low, mean),
        high=max(high, mean),
        interval=f"bootstrap, {RESAMPLES} resamples",
        optimistic=None if optimistic is None else float(optimistic.double().mean()),
        pessimistic=None if pessimistic is None else float(pessimistic.double().mean()),
    )

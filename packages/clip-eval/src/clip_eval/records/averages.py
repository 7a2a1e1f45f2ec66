"""One number for a data set, and one for many: main scores and their plain means, with intervals where they are known.

What is not here: which data sets belong together (`clip_eval.suites`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from clip_eval.published import published_metric
from clip_eval.records.rows import Row, Score, is_share, main_metrics

__all__ = ["average", "main_score", "official_score"]

_BOTH = ("image_retrieval_recall@1", "text_retrieval_recall@1")


def main_score(row: Row) -> Score | None:
    """What stands for a row in an average; None for a row without a share.

    For retrieval it is the mean of both directions. They share the images, so its interval is as wide as if they erred
    together.
    """
    names = main_metrics(tuple(row.metrics), row.task, row.entry)
    if not names or not all(is_share(name) for name in names):
        return None
    return _joined([row.metrics[name] for name in names])


def official_score(row: Row) -> Score | None:
    """The number of DataComp's and OpenCLIP's main tables, of zero-shot results in English; None without it."""
    entry = row.entry
    if entry is None or row.task == "linear_probe" or (row.language or "en") != "en" or row.split != "test":
        return None
    names = (published_metric(entry.name), entry.main_metric) if entry.datacomp else (entry.main_metric,)
    for name in names:
        if name in row.metrics:
            return row.metrics[name]
    both = [row.metrics[name] for name in _BOTH if name in row.metrics]
    return _joined(both) if entry.main_metric == "mean_recall@1" and len(both) == 2 else None


def _joined(scores: Sequence[Score]) -> Score:
    if len(scores) == 1:
        return scores[0]
    low, high = (_mean([getattr(score, side) for score in scores]) for side in ("low", "high"))
    return Score(
        value=fmean(score.value for score in scores),
        n=min((score.n for score in scores if score.n is not None), default=None),
        low=low,
        high=high,
        interval="" if low is None else "mean of both directions' limits",
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def average(scores: Sequence[Score]) -> Score:
    """The plain mean of scores on different data sets; its interval, if all have one, takes them as independent."""
    value = fmean(score.value for score in scores)
    down = [score.value - score.low for score in scores if score.low is not None]
    up = [score.high - score.value for score in scores if score.high is not None]
    if len(down) < len(scores) or len(up) < len(scores):
        return Score(value=value)
    return Score(
        value=value,
        low=value - math.hypot(*down) / len(scores),
        high=value + math.hypot(*up) / len(scores),
        interval="data sets independent",
    )

"""Compares two models data set by data set: what they differ by, and whether it is more than noise.

Where both records kept what each query scored, the test is paired: on the same images, so that only the queries on
which the models disagree count. Otherwise it is a test on two numbers with intervals, and says so. Results of other
prompts, other data or other exclusions are not compared. What is not here: which results
belong together (`records.matching`), the tests (`metrics.paired`), printing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

import torch

from clip_core.errors import ConfigError, DataError
from clip_eval.metrics.paired import compare_outcomes, compare_scores, holm
from clip_eval.records.matching import IGNORABLE, obstacle, pairs, several_tasks, title_of
from clip_eval.records.rows import Row, Score, is_share, lower_is_better
from clip_eval.records.tables import chosen_metrics
from clip_eval.tasks.result import Outcomes

__all__ = ["LEVEL", "Comparison", "Verdict", "average_difference", "compare_rows"]

LEVEL = 0.05
"""Below this adjusted p a difference is more than noise."""
Verdict = Literal["A better", "B better", "within noise", "not comparable", "not tested"]

_Z = 1.959963984540054  # the 97.5 % point of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models, A and B, on one metric of one data set."""

    dataset: str
    title: str
    """The data set for people, with whatever tells it from others: split, task, language."""
    split: str
    task: str
    language: str | None
    metric: str
    main: bool
    """Whether it is the metric that tables show first; these are corrected together."""
    first: Score
    second: Score
    verdict: Verdict
    reason: str = ""
    """Why there is no verdict, or what weakens it."""
    difference: float | None = None
    """B minus A; None where they are not comparable."""
    low: float | None = None
    high: float | None = None
    """95 % interval of the difference."""
    p: float | None = None
    """Two-sided, of this test alone."""
    adjusted: float | None = None
    """p after Holm's correction over the data sets."""
    test: str = ""
    clusters: int | None = None
    """Of a paired test: images, each with all its queries."""
    better: int | None = None
    worse: int | None = None
    """Of a paired test: on how many of them B scores higher, and lower."""

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("first", "second")}
        return plain | {"a": self.first.value, "b": self.second.value, "n": self.first.n or self.second.n}


def compare_rows(
    first: Sequence[Row],
    second: Sequence[Row],
    *,
    metrics: str | Sequence[str] = "main",
    ignore: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> list[Comparison]:
    """Compares the results of model A, `first`, with those of model B, `second`, wherever both have one.

    Args:
        first, second: rows of one model each.
        metrics: "main", "all" or names.
        ignore: of `IGNORABLE`; "prompts" compares results of other prompts.
        resamples, seed: of the bootstrap.

    Returns:
        In the order of `first`. p is corrected by Holm's method: over all main metrics together, and over the data sets
        for every other metric.

    Raises:
        ConfigError: a word in `ignore` is none of `IGNORABLE`.
        DataError: a record's companion is damaged.
    """
    if unknown := [word for word in ignore if word not in IGNORABLE]:
        raise ConfigError(f"{unknown[0]!r} cannot be ignored; allowed: {', '.join(IGNORABLE)}.")
    several = several_tasks(first)
    found: list[Comparison] = []
    for a, b in pairs(first, second, ignore):
        reason = obstacle(a, b, ignore)
        outcomes = ({}, {}) if reason else (_outcomes(a), _outcomes(b))
        common = replace(a, metrics={name: score for name, score in a.metrics.items() if name in b.metrics})
        mains = chosen_metrics(common, "main")
        for name in chosen_metrics(common, metrics):
            entry = Comparison(
                dataset=a.dataset,
                title=title_of(a, a.dataset in several),
                split=a.split,
                task=a.task,
                language=a.language,
                metric=name,
                main=name in mains,
                first=a.metrics[name],
                second=b.metrics[name],
                verdict="not comparable",
                reason=reason,
            )
            found.append(entry if reason else _tested(entry, a, b, outcomes, resamples, seed))
    return _judged(found)


def average_difference(comparisons: Sequence[Comparison]) -> Comparison | None:
    """The mean difference over the data sets, each with its main metric (both directions of retrieval count half).

    The data sets count as independent. None for fewer than two that are comparable shares with an interval.
    """
    sets: dict[tuple[str, ...], list[Comparison]] = {}
    for entry in comparisons:
        if entry.main and entry.difference is not None and entry.low is not None and is_share(entry.metric):
            key = (entry.dataset, entry.split, entry.task, entry.language or "en", entry.title)
            sets.setdefault(key, []).append(entry)
    if len(sets) < 2:
        return None
    means = [
        # Both directions share the images: their limits are averaged as if they erred together.
        tuple(fmean(values) for values in zip(*(_numbers(entry) for entry in entries), strict=True))
        for entries in sets.values()
    ]
    a, b, difference = (fmean(mean[place] for mean in means) for place in range(3))
    down = math.hypot(*(mean[2] - mean[3] for mean in means)) / len(means)
    up = math.hypot(*(mean[4] - mean[2] for mean in means)) / len(means)
    side = down if difference > 0 else up
    p = 1.0 if difference == 0 else math.erfc(_Z * abs(difference) / side / math.sqrt(2)) if side > 0 else 0.0
    return Comparison(
        dataset="",
        title=f"average of {len(sets)}",
        split="",
        task="",
        language=None,
        metric="",
        main=False,
        first=Score(value=a),
        second=Score(value=b),
        difference=difference,
        low=difference - down,
        high=difference + up,
        p=p,
        adjusted=p,
        test="normal, data sets independent",
        verdict=_verdict(difference, p, "acc1"),
    )


def _outcomes(row: Row) -> dict[str, Outcomes]:
    """What each query scored, checked against the record's numbers."""
    if row.record is None:
        return {}
    found = row.record.outcomes()
    for name, entry in found.items():
        if name in row.metrics and not math.isclose(
            float(entry.values.double().mean()), row.metrics[name].value, rel_tol=1e-4, abs_tol=1e-5
        ):
            raise DataError(
                f"{row.path}: the outcomes of {name} have the mean {float(entry.values.double().mean()):.6f}, the "
                f"record says {row.metrics[name].value:.6f}. Run the evaluation again."
            )
    return found


def _tested(
    entry: Comparison,
    a: Row,
    b: Row,
    outcomes: tuple[Mapping[str, Outcomes], Mapping[str, Outcomes]],
    resamples: int,
    seed: int,
) -> Comparison:
    difference = entry.second.value - entry.first.value
    one, two = (held.get(entry.metric) for held in outcomes)
    if one is not None and two is not None and torch.equal(one.clusters, two.clusters):
        result = compare_outcomes(one.values, two.values, one.clusters, resamples=resamples, seed=seed)
        # The record's own values are not rounded to float32.
        return replace(
            entry,
            difference=difference,
            low=min(result.low, difference),
            high=max(result.high, difference),
            p=result.p,
            test=result.test,
            clusters=result.clusters,
            better=result.better,
            worse=result.worse,
        )
    limits = [_limits(score) for score in (entry.first, entry.second)]
    if limits[0] is None or limits[1] is None:
        reason = "no interval is known"
        return replace(entry, difference=difference, verdict="not tested", reason=reason)
    loose = compare_scores(limits[0], limits[1])
    why = "outcomes of queries" if a.record is None or b.record is None else f"outcomes of {entry.metric}"
    return replace(
        entry,
        difference=difference,
        low=loose.low,
        high=loose.high,
        p=loose.p,
        test="unpaired",
        reason=f"unpaired: no {why} on both sides",
    )


def _limits(score: Score) -> tuple[float, float, float] | None:
    if score.low is None or score.high is None:
        return None
    return score.value, score.low, score.high


def _judged(found: Sequence[Comparison]) -> list[Comparison]:
    """With adjusted p and verdicts."""
    families: dict[str, list[int]] = {}
    for place, entry in enumerate(found):
        if entry.p is not None:
            families.setdefault("" if entry.main else entry.metric, []).append(place)
    judged = list(found)
    for places in families.values():
        adjusted = holm([p for place in places if (p := found[place].p) is not None])
        for place, p in zip(places, adjusted, strict=True):
            entry = found[place]
            judged[place] = replace(entry, adjusted=p, verdict=_verdict(entry.difference or 0.0, p, entry.metric))
    return judged


def _verdict(difference: float, p: float, metric: str) -> Verdict:
    if p >= LEVEL or difference == 0:
        return "within noise"
    return "B better" if (difference < 0) == lower_is_better(metric) else "A better"


def _numbers(entry: Comparison) -> tuple[float, ...]:
    if entry.difference is None or entry.low is None or entry.high is None:
        raise ValueError(f"{entry.title}: without an interval")
    return entry.first.value, entry.second.value, entry.difference, entry.low, entry.high

"""Models two by two: what they differ by on each data set, and whether that is more than noise.

The tests are `clip_eval.compare`'s. What is not here: models of other tools.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from clip_eval.compare import Comparison, average_difference, compare_rows
from clip_eval.records.rows import is_share, row_of
from clip_eval.report.numbers import signed, words
from clip_eval.report.results import Model, Result

__all__ = ["Duel", "Outcome", "duels"]

_ALL_PAIRS = 3
"""Up to so many models each is compared with each; beyond, all with the first."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One metric of one data set."""

    title: str
    metric: str
    difference: str
    interval: str
    verdict: str
    winner: str | None
    """"first" or "second"; None within noise."""
    reason: str


@dataclass(frozen=True, slots=True)
class Duel:
    """Two models."""

    first: Model
    second: Model
    outcomes: list[Outcome]
    average: str | None
    """Mean difference in words."""

    @property
    def count(self) -> str:
        """How it ends, in a sentence."""
        wins = [sum(outcome.winner == side for outcome in self.outcomes) for side in ("second", "first")]
        noise = sum(outcome.verdict == "within noise" for outcome in self.outcomes)
        return f"better on {wins[0]}, worse on {wins[1]}, within noise on {noise}"


def duels(results: Sequence[Result], models: Sequence[Model]) -> list[Duel]:
    """The pairs of models that have a data set in common; p is corrected within each pair.

    Raises:
        DataError: a record's companion is damaged.
    """
    few = len(models) <= _ALL_PAIRS
    rows = {
        model.key: [row_of(result.record) for result in results if result.model.key == model.key] for model in models
    }
    found = []
    for first, second in itertools.combinations(models, 2) if few else ((models[0], one) for one in models[1:]):
        comparisons = compare_rows(rows[first.key], rows[second.key])
        if comparisons:
            mean = average_difference(comparisons)
            average = None if mean is None else f"{_difference(mean)} ({_interval(mean)})"
            found.append(Duel(first, second, [_outcome(entry) for entry in comparisons], average))
    return found


def _outcome(entry: Comparison) -> Outcome:
    winner = {"A better": "first", "B better": "second"}.get(entry.verdict)
    verdict = {"first": "worse", "second": "better"}.get(winner or "", entry.verdict)
    return Outcome(
        entry.title, words(entry.metric).label, _difference(entry), _interval(entry), verdict, winner, entry.reason
    )


def _difference(entry: Comparison) -> str:
    if entry.difference is None:
        return "–"
    if not is_share(entry.metric):
        return f"{entry.difference:+.3f}".replace("-", "\N{MINUS SIGN}")
    return signed(entry.difference)


def _interval(entry: Comparison) -> str:
    if entry.low is None or entry.high is None or not is_share(entry.metric):
        return ""
    return f"{signed(entry.low)} to {signed(entry.high)}"

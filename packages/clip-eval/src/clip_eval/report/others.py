"""Results of other tools beside the records: a column of the summary for each of their models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

from clip_eval.records.readers import read_rows
from clip_eval.report.numbers import Words, amount, percent, span, words
from clip_eval.report.results import Board

__all__ = ["OtherColumn", "OtherNumber", "other_columns"]


@dataclass(frozen=True, slots=True)
class OtherNumber:
    """A number that may have no interval; it has what the summary asks of a `Number`."""

    name: str
    value: float
    low: float | None
    high: float | None

    @property
    def words(self) -> Words:
        """What it is called."""
        return words(self.name)

    @property
    def is_share(self) -> bool:
        """Whether it can be drawn on a track from 0 to 100 %."""
        return self.words.kind == "share" and 0 <= self.value <= 1

    @property
    def text(self) -> str:
        """The value."""
        return percent(self.value) if self.is_share else amount(self.value)

    @property
    def span(self) -> str:
        """The interval, or that there is none."""
        if self.low is None or self.high is None:
            return "no interval"
        return span(self.low, self.high) if self.is_share else f"{amount(self.low)} – {amount(self.high)}"

    @property
    def bounds(self) -> None:
        """Other tools do not state what ties leave open."""
        return


@dataclass(frozen=True, slots=True)
class OtherColumn:
    """One model in results of one tool."""

    label: str
    numbers: dict[tuple[str, str, str], OtherNumber]
    """By data set (the catalogue's name where it has one), task and metric."""

    def of(self, board: Board, metric: str) -> OtherNumber | None:
        """Its number for a row of the summary; only of the data set's own words, not of another language."""
        known = board.results[0].entry
        return self.numbers.get((known.name if known else str(board.dataset["name"]), board.task, metric))


def other_columns(sources: Sequence[str | PathLike[str]]) -> list[OtherColumn]:
    """A column per model and tool, in the order of the files.

    Raises:
        DataError: a file is missing, damaged or of an unknown kind.
    """
    columns: dict[str, dict[tuple[str, str, str], OtherNumber]] = {}
    for row in read_rows(sources):
        if row.language not in (None, "", "en"):
            continue
        numbers = columns.setdefault(f"{row.model_name} ({row.source})", {})
        for name, score in row.metrics.items():
            if math.isfinite(score.value):
                numbers.setdefault((row.dataset, row.task, name), OtherNumber(name, score.value, score.low, score.high))
    return [OtherColumn(label, numbers) for label, numbers in columns.items()]

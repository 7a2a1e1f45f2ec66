"""The first screen: every model on every data set, averages, and what a reader has to know before comparing.

What is not here: how single records look, paired tests (`clip_eval.compare` makes them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clip_eval.records.rows import lower_is_better
from clip_eval.report.numbers import Number, percent, words
from clip_eval.report.others import OtherColumn, OtherNumber
from clip_eval.report.results import Board, Model, Result

__all__ = ["Average", "Row", "averages", "flags", "headlines", "score_rows", "summary_rows", "tie_notes"]

_MOST_HEADLINES = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One metric on one data set."""

    title: str
    subtitle: str
    anchor: str | None
    own: list[Number | None]
    """One per model, in their order."""
    chance: float | None
    flags: list[str]
    meaning: str = ""
    others: Sequence[OtherNumber | None] = ()
    """One per column of other tools."""

    @property
    def cells(self) -> list[Number | OtherNumber | None]:
        """All of them."""
        return [*self.own, *self.others]

    @property
    def best(self) -> int | None:
        """Which cell has the best value, where there are several that differ."""
        there = [cell for cell in self.cells if cell is not None]
        if len({cell.text for cell in there}) < 2:
            return None
        values = [cell.value for cell in there]
        best = min(values) if lower_is_better(there[0].name) else max(values)
        return next(place for place, cell in enumerate(self.cells) if cell is not None and cell.value == best)


@dataclass(frozen=True, slots=True)
class Average:
    """The mean over data sets of one model."""

    model: Model
    value: float
    half: float
    """Half of its 95 % interval: data sets are independent samples of pictures, not a sample of all data sets."""
    normalised: float | None
    """The same of (value - chance) / (1 - chance); None where a data set has no chance level."""
    count: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return max(0.0, self.value - self.half)

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return min(1.0, self.value + self.half)


def summary_rows(boards: Sequence[Board], models: Sequence[Model], others: Sequence[OtherColumn] = ()) -> list[Row]:
    """A row per data set and main metric."""
    rows = []
    for board in boards:
        for name in board.main:
            row = _row(board, name, models)
            notes = [note for result in board.results for note in flags(result, name)]
            # Of several models the largest share of ties is enough here; the section has each.
            old = [column.of(board, name) for column in others]
            rows.append(Row(board.title, row.title, board.anchor, row.own, row.chance, _distinct(notes), others=old))
    return rows


def score_rows(board: Board) -> list[Row]:
    """A row per metric of one data set; its columns are the models that were evaluated on it."""
    return [_row(board, name, [result.model for result in board.results]) for name in board.metrics]


def _row(board: Board, name: str, models: Sequence[Model]) -> Row:
    results = [board.of(model) for model in models]
    cells = [None if result is None else result.numbers.get(name) for result in results]
    known = next(cell for cell in cells if cell is not None)
    return Row(known.words.label, "", None, cells, known.chance, [], known.words.meaning)


def flags(result: Result, metric: str | None = None) -> list[str]:
    """What makes the numbers of a record less than plain: exclusions, ties, cut texts, bounds."""
    dataset, found = result.data["dataset"], []
    if dataset["excluded"]["count"]:
        found.append(f"{dataset['excluded']['count']:,} of {dataset['samples']:,} pictures left out")
    shares = [share for name, share in result.data["ties"].items() if share > 0 and _concerns(name, metric)]
    if shares:
        found.append(f"ties in {_small(max(shares))} of the queries")
    return found


def _distinct(notes: Sequence[str]) -> list[str]:
    """One note of each kind."""
    kinds: dict[str, str] = {}
    for note in notes:
        kinds.setdefault(note.split()[-1], note)
    return list(kinds.values())


def tie_notes(board: Board) -> list[str]:
    """In a sentence for each part of the metrics: how often a right answer ties with a wrong one."""
    found: dict[str, list[str]] = {}
    for result in board.results:
        for name, share in result.data["ties"].items():
            if share > 0:
                of_whom = f" ({result.model.label})" if len(board.results) > 1 else ""
                found.setdefault(name, []).append(f"{_small(share)}{of_whom}")
    return [f"{', '.join(shares)} of the queries behind {_tie_name(name)}" for name, shares in found.items()]


def _tie_name(name: str) -> str:
    directions = {"image_retrieval": "text to image", "text_retrieval": "image to text"}
    return directions.get(name, words(name).label)


def _concerns(tie: str, metric: str | None) -> bool:
    """Ties are stated by the part of the metrics' names that they concern."""
    return metric is None or metric.startswith(tie) or tie in metric


def _small(share: float) -> str:
    return percent(share) if share >= 0.001 else "less than 0.1 %"


def headlines(boards: Sequence[Board]) -> list[tuple[Board, Result, Number]]:
    """The main numbers for the cards on top; none where they are too many, then the table says it better."""
    found = [(board, result, number) for board in boards for result in board.results for number in result.main]
    return found if len(found) <= _MOST_HEADLINES else []


def averages(boards: Sequence[Board], models: Sequence[Model]) -> list[Average]:
    """Plain means over the data sets that all models have; a data set with two main metrics counts once.

    The interval adds up the variances of the data sets, half of each interval being 1.96 standard errors.
    """
    shared = [
        board
        for board in boards
        if all((result := board.of(model)) and all(number.is_share for number in result.main) for model in models)
    ]
    if len(shared) < 2:
        return []
    found = []
    for model in models:
        parts = [result.main for board in shared if (result := board.of(model)) is not None]
        means = [sum(number.value for number in part) / len(part) for part in parts]
        # Two directions of one retrieval share their pictures: the wider of the two intervals stands for both.
        halves = [max((number.high - number.low) / 2 for number in part) for part in parts]
        normalised = [[number.normalised for number in part] for part in parts]
        known = [[value for value in part if value is not None] for part in normalised]
        complete = all(len(some) == len(part) for some, part in zip(known, parts, strict=True))
        found.append(
            Average(
                model,
                sum(means) / len(means),
                math.sqrt(sum(half**2 for half in halves)) / len(halves),
                sum(sum(part) / len(part) for part in known) / len(known) if complete else None,
                len(parts),
            )
        )
    return found

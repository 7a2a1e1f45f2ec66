"""Effective robustness: accuracy on shifts of ImageNet beside what models of that ImageNet accuracy reach.

The line and its points are `clip_eval.published`'s. What is not here: models without a record on ImageNet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clip_eval.catalogue import lookup
from clip_eval.published import SHIFTS, RobustnessFit, fit_robustness
from clip_eval.report.numbers import Number, percent, signed
from clip_eval.report.plots import Plot, linear
from clip_eval.report.results import Board, Model

__all__ = ["Shift", "Standing", "shifts"]

_IMAGENET = "imagenet1k"
_MARKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
_LOOSE = 0.8
"""Below this correlation a line lets expect little."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One model against the line."""

    model: Model
    imagenet: Number
    shifted: Number
    expected: float

    @property
    def effective(self) -> str:
        """Effective robustness in points, with the interval of the accuracy on the shift."""
        low, high = self.shifted.low - self.expected, self.shifted.high - self.expected
        return f"{signed(self.shifted.value - self.expected)} points ({signed(low)} to {signed(high)})"


@dataclass(frozen=True, slots=True)
class Shift:
    """One shift of ImageNet, the published models on it and our own."""

    title: str
    fit: RobustnessFit
    standings: list[Standing]

    @property
    def is_loose(self) -> bool:
        """Whether the line says little."""
        return self.fit.correlation < _LOOSE

    @property
    def plot(self) -> Plot:
        """Accuracy on the shift over accuracy on ImageNet, both on the logit scale."""
        own = [(one.imagenet.value, one.shifted.value) for one in self.standings]
        peers = [(x, y) for _, _, x, y in self.fit.points]
        x = _span([point[0] for point in [*own, *peers]])
        y = _span([point[1] for point in [*own, *peers]])
        plot = linear(
            x=x,
            y=y,
            x_label="accuracy on ImageNet",
            y_label=f"accuracy on {self.title}",
            description=f"{self.title} over ImageNet for {len(peers)} published models and {len(own)} here. "
            + " ".join(
                f"{one.model.label}: {percent(one.shifted.value)}, expected {percent(one.expected)}."
                for one in self.standings
            ),
            x_ticks=_marks(x),
            y_ticks=_marks(y),
            x_scale=_logit,
            y_scale=_logit,
        )
        for model, tag, at_x, at_y in self.fit.points:
            plot.add_dot(at_x, at_y, f"{model} {tag}: ImageNet {percent(at_x)}, here {percent(at_y)}", style="peer")
        steps = [x[0] + (x[1] - x[0]) * step / 40 for step in range(41)]
        # Only the part of the line that the box holds.
        line = [(value, self.fit.expected(value)) for value in steps]
        plot.add_line([point for point in line if y[0] <= point[1] <= y[1]], "fit")
        for number, one in enumerate(self.standings, start=1):
            plot.add_dot(
                one.imagenet.value,
                one.shifted.value,
                f"{one.model.label}: ImageNet {one.imagenet.text}, here {one.shifted.text}",
                low=max(y[0], one.shifted.low),
                high=min(y[1], one.shifted.high),
                mark=str(number),
            )
        return plot


def shifts(boards: Sequence[Board]) -> list[Shift]:
    """The shifts that a model with a record on ImageNet has a record on, in the order of `published.SHIFTS`."""
    known: dict[str, Board] = {}
    for board in boards:
        entry = lookup(str(board.dataset["name"])) if board.task == "zero_shot_classification" else None
        if entry is not None:
            known.setdefault(entry.name, board)
    found = []
    for name in SHIFTS:
        if _IMAGENET not in known or name not in known:
            continue
        fit, standings = fit_robustness(name), []
        for result in known[name].results:
            base = known[_IMAGENET].of(result.model)
            numbers = (base.numbers.get("acc1") if base else None), result.numbers.get("acc1")
            if numbers[0] is None or numbers[1] is None or not 0 < numbers[0].value < 1:
                continue
            standings.append(Standing(result.model, numbers[0], numbers[1], fit.expected(numbers[0].value)))
        if standings:
            entry = lookup(name)
            found.append(Shift(entry.title if entry else name, fit, standings))
    return found


def _logit(share: float) -> float:
    share = min(0.999, max(0.001, share))
    return math.log(share / (1 - share))


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The range of some shares, with a little room on the logit scale."""
    low, high = _logit(min(values)), _logit(max(values))
    room = 0.06 * (high - low) + 0.05
    return 1 / (1 + math.exp(room - low)), 1 / (1 + math.exp(-room - high))


def _marks(span: tuple[float, float]) -> list[tuple[float, str]]:
    return [(mark, f"{100 * mark:g} %") for mark in _MARKS if span[0] <= mark <= span[1]]

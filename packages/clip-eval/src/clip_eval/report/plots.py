"""Geometry of the small figures on the page: axes, points, lines and bars in a box of 400 x 300 units, y downward.

The templates draw them as SVG with their labels inside. What is not here: where the numbers come from; pictures as
files (`clip_eval.figures`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from clip_eval.training_log import Tick, nice_ticks

__all__ = ["HEIGHT", "WIDTH", "Bar", "Dot", "Line", "Plot", "linear", "ticks_between"]

WIDTH, HEIGHT = 400.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 20.0, 10.0, 40.0


@dataclass(frozen=True, slots=True)
class Dot:
    """A point, with a bar from `low` to `high` where it has one."""

    x: float
    y: float
    label: str
    style: str = "own"
    low: float | None = None
    high: float | None = None
    mark: str = ""
    """A number or a letter inside it, for the text to refer to."""


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline, as SVG points."""

    points: str
    style: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle that stands on the x axis."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(slots=True)
class Plot:
    """One figure."""

    x_label: str
    y_label: str
    description: str
    x: Callable[[float], float]
    y: Callable[[float], float]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    dots: list[Dot] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)

    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM

    def add_dot(
        self,
        x: float,
        y: float,
        label: str,
        *,
        style: str = "own",
        low: float | None = None,
        high: float | None = None,
        mark: str = "",
    ) -> None:
        """A point in the units of the data."""
        ends = [None if end is None else self.y(end) for end in (low, high)]
        self.dots.append(Dot(self.x(x), self.y(y), label, style, ends[0], ends[1], mark))

    def add_line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        """A polyline in the units of the data."""
        self.lines.append(Line(" ".join(f"{self.x(x):.2f},{self.y(y):.2f}" for x, y in points), style))

    def add_bar(self, low: float, high: float, value: float, label: str) -> None:
        """A bar from `low` to `high` on the x axis, `value` high."""
        top = self.y(value)
        self.bars.append(
            Bar(self.x(low) + 0.75, top, max(0.5, self.x(high) - self.x(low) - 1.5), self.bottom - top, label)
        )


def linear(
    *,
    x: tuple[float, float],
    y: tuple[float, float],
    x_label: str,
    y_label: str,
    description: str,
    x_ticks: Sequence[tuple[float, str]] | None = None,
    y_ticks: Sequence[tuple[float, str]] | None = None,
    x_scale: Callable[[float], float] = float,
    y_scale: Callable[[float], float] = float,
) -> Plot:
    """Axes over the ranges `x` and `y`; `x_scale`, `y_scale` bend them (a logarithm, a logit)."""

    def place(
        value: float, span: tuple[float, float], scale: Callable[[float], float], start: float, stop: float
    ) -> float:
        low, high = scale(span[0]), scale(span[1])
        share = (scale(value) - low) / (high - low)
        return start + min(1.0, max(0.0, share)) * (stop - start)

    def at_x(value: float) -> float:
        return place(value, x, x_scale, _LEFT, WIDTH - _RIGHT)

    def at_y(value: float) -> float:
        return place(value, y, y_scale, HEIGHT - _BOTTOM, _TOP)

    columns = ticks_between(*x) if x_ticks is None else x_ticks
    rows = ticks_between(*y) if y_ticks is None else y_ticks
    return Plot(
        x_label=x_label,
        y_label=y_label,
        description=description,
        x=at_x,
        y=at_y,
        x_ticks=[Tick(at_x(value), label) for value, label in columns],
        y_ticks=[Tick(at_y(value), label) for value, label in rows],
    )


def ticks_between(low: float, high: float, *, form: str = "g") -> list[tuple[float, str]]:
    """Round values inside the range, and what they are called."""
    slack = 1e-9 * (high - low)
    return [(value, f"{value:{form}}") for value in nice_ticks(low, high) if low - slack <= value <= high + slack]

"""The figures of the report: curves over the run, one run or two in one figure, and the split of the time.

Geometry is that of clip-eval; a figure is 400 x 300 units. What this room leaves out: what stands around them (`page`).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence

from clip_eval.report.plots import Plot, linear, ticks_between
from clip_train.measuring.split import LOOP
from clip_train.report.reading import BUCKETS, RunRecord

__all__ = ["STYLES", "Figure", "evaluation_figures", "split_figure", "step_figures"]

STYLES = ("first", "second")
"""Of the lines of the first and of the second run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """A plot with a title."""

    title: str
    plot: Plot
    note: str = ""


_STEP_FIGURES: tuple[tuple[str, str, str, str], ...] = (
    ("loss", "Loss", "loss", "Thin: each step, or the mean of neighbours in a long run. Thick: fading mean."),
    ("lr", "Learning rate", "learning rate", ""),
    ("logit_scale", "Logit scale", "scale", ""),
    ("grad_norm", "Gradient norm", "norm", "Before clipping."),
    ("samples_per_second", "Throughput", "samples per second", "Of all processes, without what happens between steps."),
    ("mfu", "Model FLOPs utilisation", "share of the peak", "The model's own operations, of the device's peak."),
)


def step_figures(runs: Sequence[RunRecord]) -> list[Figure]:
    """A figure for each number of the steps that any of the runs has."""
    found = []
    for name, title, axis, note in _STEP_FIGURES:
        curves = [_thinned(_axis(runs, run), run.columns[name]) for run in runs]
        if not any(curves):
            continue
        smooth = [_smoothed(curve) for curve in curves]
        is_rough = name in ("loss", "grad_norm", "samples_per_second", "mfu")
        plot = _frame(curves, axis, title, x_label=_x_label(runs), all_values=not is_rough)
        for style, raw, mean in zip(STYLES, curves, smooth, strict=False):
            if is_rough:
                _draw(plot, raw, f"raw {style}")
            _draw(plot, mean if is_rough else raw, f"run {style}")
        found.append(Figure(title, plot, note))
    return found


def evaluation_figures(runs: Sequence[RunRecord]) -> list[Figure]:
    """A figure for each chief number of the evaluations."""
    names = dict.fromkeys(name for run in runs for entry in run.evaluations for name in entry if is_chief(name))
    found = []
    for name in names:
        curves = []
        for run in runs:
            axis = "samples_seen" if _by_samples(runs) else "step"
            points = [(float(entry[axis]), entry[name]) for entry in run.evaluations if entry.get(name) is not None]
            curves.append([(x, float(y)) for x, y in points])
        if not any(curves):
            continue
        plot = _frame(curves, "loss" if name.endswith("loss") else "value", name, x_label=_x_label(runs))
        for style, curve, run in zip(STYLES, curves, runs, strict=False):
            _draw(plot, curve, f"run {style}")
            for x, y in curve:
                plot.add_dot(x, y, f"{run.name}: {y:.4g}", style=style)
        found.append(Figure(name, plot))
    return found


def is_chief(name: str) -> bool:
    """Whether a number of an evaluation has a figure; the others are in the table."""
    last = name.rpartition("/")[2]
    known = ("acc1", "clip_val_loss", "mean_average_precision", "mean_recall@1", "acc", "jaccard")
    return "/" in name and (last in known or last.endswith(("_R@1", "retrieval_recall@1")))


def split_figure(run: RunRecord) -> Figure | None:
    """Shares of the loop's time, one above the other, over the steps; None for a run that was not measured."""
    rows = [(step, split) for step, split in run.splits if split.seconds]
    if not rows:
        return None
    if len(rows) == 1:
        rows = [(rows[0][0] - 0.5, rows[0][1]), (rows[0][0] + 0.5, rows[0][1])]
    plot = linear(
        x=(rows[0][0], rows[-1][0]),
        y=(0.0, 1.0),
        x_label="step",
        y_label="share of the time",
        description="Parts of the loop's time over the run: "
        + ", ".join(f"{LOOP[part]} {100 * run.split.share(part):.0f} %" for part in LOOP),
        x_ticks=_x_ticks(rows[0][0], rows[-1][0]),
        y_ticks=[(share, f"{100 * share:.0f} %") for share in (0, 0.25, 0.5, 0.75, 1)],
    )
    below = [0.0] * len(rows)
    for part in LOOP:
        above = [low + split.share(part) for low, (_, split) in zip(below, rows, strict=True)]
        edge = [(step, high) for (step, _), high in zip(rows, above, strict=True)]
        edge += [(step, low) for (step, _), low in reversed(list(zip(rows, below, strict=True)))]
        plot.add_line(edge, f"part {part}")
        below = above
    return Figure("Where the time went", plot)


def _by_samples(runs: Sequence[RunRecord]) -> bool:
    """Two runs of different batches are compared by the samples that they have seen."""
    batches = [run.columns["samples_seen"][0] / run.columns["step"][0] for run in runs]
    return len(set(batches)) > 1


def _axis(runs: Sequence[RunRecord], run: RunRecord) -> Sequence[float]:
    return run.columns["samples_seen" if _by_samples(runs) else "step"]


def _x_label(runs: Sequence[RunRecord]) -> str:
    return "samples seen" if _by_samples(runs) else "step"


def _thinned(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    """At most `BUCKETS` points, each the mean of neighbours that are numbers; NaN where none of them is one."""
    size = math.ceil(len(xs) / BUCKETS)
    points = []
    for start in range(0, len(xs), size):
        finite = [y for y in ys[start : start + size] if math.isfinite(y)]
        points.append((statistics.fmean(xs[start : start + size]), statistics.fmean(finite) if finite else math.nan))
    return points if any(math.isfinite(y) for _, y in points) else []


def _smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A fading mean that looks a fortieth of the curve back and as far ahead, so that it does not lag behind."""
    back = _faded([y for _, y in points])
    ahead = _faded([y for _, y in reversed(points)])[::-1]
    return [(x, (one + other) / 2) for (x, _), one, other in zip(points, back, ahead, strict=True)]


def _faded(values: Sequence[float]) -> list[float]:
    kept, total, weight, found = math.exp(-1 / max(2.0, len(values) / 40)), 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            total, weight = kept * total + value, kept * weight + 1
        found.append(total / weight if weight else math.nan)
    return found


def _draw(plot: Plot, points: Sequence[tuple[float, float]], style: str) -> None:
    """A line; a new one begins where values are missing."""
    part: list[tuple[float, float]] = []
    for x, y in [*points, (math.nan, math.nan)]:
        if math.isfinite(y):
            part.append((x, y))
        elif part:
            plot.add_line(part if len(part) > 1 else part * 2, style)
            part = []


def _frame(
    curves: Iterable[Sequence[tuple[float, float]]],
    y_label: str,
    title: str,
    *,
    x_label: str,
    all_values: bool = True,
) -> Plot:
    """Axes around all points; where a few values are far off, they are cut at the frame instead of flattening all."""
    points = [(x, y) for curve in curves for x, y in curve if math.isfinite(y)]
    xs, ys = [x for x, _ in points], sorted(y for _, y in points)
    low, high = ys[0], ys[-1]
    if not all_values and len(ys) >= 20:
        low, high = ys[len(ys) // 100], ys[-1 - len(ys) // 100]
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - room, high + room
    left, right = min(xs), max(xs)
    if left == right:
        left, right = left - 0.5, right + 0.5
    return linear(
        x=(left, right),
        y=(low, high),
        x_label=x_label,
        y_label=y_label,
        description=f"{title}: from {points[0][1]:.4g} to {points[-1][1]:.4g}",
        x_ticks=_x_ticks(left, right),
        y_ticks=[(value, _brief(value)) for value, _ in ticks_between(low, high)],
    )


def _x_ticks(low: float, high: float) -> list[tuple[float, str]]:
    ticks = [(value, _short(value)) for value, _ in ticks_between(low, high) if value == int(value)]
    # A label at the very end would be cut off.
    return [tick for tick in ticks if tick[0] <= high - 0.02 * (high - low) or len(tick[1]) < 4]


def _brief(value: float) -> str:
    """So that it has room beside the axis."""
    plain = f"{value:g}"
    return plain if len(plain) <= 5 else f"{value:.2g}".replace("e-0", "e-") if abs(value) < 1e-2 else _short(value)


def _short(value: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 10 * size or (value >= size and value % (size / 10) == 0):
            return f"{value / size:g}{letter}"
    return f"{value:g}"

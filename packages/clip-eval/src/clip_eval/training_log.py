"""Reads the run folder of a training (`config.json`, `metrics.jsonl`) as plain files and lays out its loss curve.

clip-train is not imported: it stands to the right. Coordinates are percentages of the plot, y downward, so that a page
can stretch the curve while its labels keep their size.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from clip_core.errors import DataError

__all__ = ["LossCurve", "Tick", "TrainingLog", "loss_curve", "nice_ticks", "read_training", "zero_shot_curves"]


_SHARES = ("acc1", "mean_average_precision", "image_retrieval_recall@1", "text_retrieval_recall@1", "acc")


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """What a run folder says about itself."""

    name: str
    config: dict[str, Any]
    steps: list[dict[str, Any]]
    """One record per optimiser step, with at least `step` and `loss` (None where it was not a number)."""
    cut: bool
    """Whether the last line was only half written, as a kill leaves it."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """Lines about no step of their own: a `step` and metrics as `data set/metric`."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A label on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class LossCurve:
    """Geometry of the curve, and a few of its values for those who cannot see it."""

    lines: list[str]
    """SVG points of the mean loss; a new line begins after steps whose loss was not finite."""
    bands: list[str]
    """SVG points of the range between the smallest and the largest loss around each point."""
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    samples: list[tuple[int, float]]
    """(step, mean loss around it) at five places."""


def read_training(folder: str | PathLike[str]) -> TrainingLog:
    """Raises `DataError` when the folder or one of the two files is missing, or a line is no record."""
    run = Path(folder)
    for path in (run, run / "config.json", run / "metrics.jsonl"):
        if not path.exists():
            raise DataError(f"{path}: missing. A training run folder holds config.json and metrics.jsonl.")
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{run / 'config.json'}: not valid JSON ({error}).") from error
    *lines, tail = (run / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
    # Whoever writes a line ends it: text after the last line feed is what a killed run did not finish.
    records = [_parse_step(run / "metrics.jsonl", number, line) for number, line in enumerate(lines, 1)]
    steps = [record for record in records if "loss" in record]
    if not steps:
        raise DataError(f"{run / 'metrics.jsonl'}: holds no step; the run ended before its first one.")
    evaluations = [record for record in records if "loss" not in record]
    return TrainingLog(run.resolve().name, config, steps, bool(tail), evaluations)


def _parse_step(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
        is_evaluation = "loss" not in record and any("/" in name for name in record)
        step, loss = record["step"], None if is_evaluation else record["loss"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: line {number} is not a record with step and loss ({error!r}).") from error
    if not isinstance(step, int) or not (loss is None or isinstance(loss, (int, float))):
        raise DataError(f"{path}: line {number}: step must be a whole number and loss a number or null.")
    return dict(record)


def zero_shot_curves(log: TrainingLog) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, value) of the evaluations on the way.

    Taken are the main shares of data sets (`digits/acc1`) and whatever is called zero-shot.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for entry in [*log.steps, *log.evaluations]:
        for name, value in entry.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            known = "/" in name and name.rpartition("/")[2] in _SHARES
            if is_number and (known or "zeroshot" in name.replace("_", "").replace("-", "").lower()):
                found.setdefault(name, []).append((entry["step"], float(value)))
    return {name: sorted(points) for name, points in found.items()}


def loss_curve(log: TrainingLog, *, points: int = 160) -> LossCurve:
    """Averages neighbouring steps until at most `points` remain, and scales them to 0 to 100."""
    size = math.ceil(len(log.steps) / points)
    groups = [log.steps[start : start + size] for start in range(0, len(log.steps), size)]
    rows = []
    for group in groups:
        values = [entry["loss"] for entry in group if entry["loss"] is not None and math.isfinite(entry["loss"])]
        step = statistics.fmean(entry["step"] for entry in group)
        rows.append((step, statistics.fmean(values), min(values), max(values)) if values else None)
    finite = [row for row in rows if row is not None]
    if not finite:
        return LossCurve([], [], [], [], [])
    first, last = float(log.steps[0]["step"]), float(log.steps[-1]["step"])
    y_values = nice_ticks(min(row[2] for row in finite), max(row[3] for row in finite))
    x_values = [value for value in nice_ticks(first, last) if first <= value <= last]

    def x(step: float) -> float:
        return 100 * (step - first) / max(1, last - first)

    def y(loss: float) -> float:
        return 100 * (y_values[-1] - loss) / (y_values[-1] - y_values[0])

    lines, bands = [], []
    for run in _runs(rows):
        lines.append(" ".join(f"{x(step):.2f},{y(mean):.2f}" for step, mean, _, _ in run))
        edge = [(step, high) for step, _, _, high in run] + [(step, low) for step, _, low, _ in reversed(run)]
        bands.append(" ".join(f"{x(step):.2f},{y(loss):.2f}" for step, loss in edge))
    places = sorted({round(part * (len(finite) - 1) / 4) for part in range(5)})
    return LossCurve(
        lines,
        bands,
        [Tick(x(value), f"{value:,.0f}") for value in x_values],
        [Tick(y(value), f"{value:g}") for value in y_values],
        [(round(finite[place][0]), finite[place][1]) for place in places],
    )


def _runs(rows: list[tuple[float, float, float, float] | None]) -> list[list[tuple[float, float, float, float]]]:
    runs: list[list[tuple[float, float, float, float]]] = [[]]
    for row in rows:
        if row is not None:
            runs[-1].append(row)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values that enclose [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    # A range that floating point can hardly tell from a point has no room for ticks between its ends.
    if high - low <= max(1e-300, 1e-9 * max(abs(low), abs(high))):
        high = low + max(1.0, abs(low))
    rough = (high - low) / count
    exponent = math.floor(math.log10(rough))
    power = 10**exponent
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    start, stop = math.floor(low / step), math.ceil(high / step)
    return [round(place * step, max(0, -exponent)) for place in range(start, stop + 1)]

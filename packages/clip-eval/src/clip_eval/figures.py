"""The pictures of a model card as PNG files, drawn from records and from the log of a training.

They are made to be read in a column of text: seven inches wide, letters of nine points. The same numbers give the same
file. What is not here: the figures inside the page (`clip_eval.report`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_core.errors import StorageError
from clip_eval.records import read_records
from clip_eval.report.calibration import Reliability, reliability
from clip_eval.report.results import Board, Model, Result, boards, damaged, models_of, read_results
from clip_eval.report.robustness import Shift, shifts
from clip_eval.report.summary import Row, score_rows, summary_rows
from clip_eval.training_log import read_training, zero_shot_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_figures"]

_INK, _SOFT, _BAND, _GRID = "#26323c", "#6d7780", "#bcd3ec", "#e4e7ea"
_COLOURS = ("#1f5fa8", "#c2571a", "#2e7d4f", "#8e4aa5", "#b8860b", "#4b5563")
_MARKS = ("o", "s", "^", "D", "v", "P")
_WIDTH, _DPI = 7.0, 150
_ROWS = 24
_PANELS = 6
_POINTS = 200


def draw_figures(
    results: str | PathLike[str], folder: str | PathLike[str], *, training: str | PathLike[str] | None = None
) -> list[Path]:
    """Writes what there are numbers for and returns the files.

    `results.png` (further rows in `results-2.png` ...), `scores-<data set>.png`, `reliability.png`, `robustness.png`,
    and with the run folder of a training `loss.png` and, if it was evaluated on the way, `zero_shot.png`.

    Raises:
        DataError: no or damaged records, a damaged training log.
        StorageError: the folder cannot be written.
    """
    found = read_results(read_records(results))
    tables, models = boards(found), models_of(found)
    log = None if training is None else read_training(training)
    target = Path(folder)
    drawn: list[Path] = []

    def save(name: str, height: float, fill: Callable[[Any], None], *, panels: int = 1) -> None:
        drawn.append(_save(target / f"{name}.png", height, fill, panels))

    try:
        target.mkdir(parents=True, exist_ok=True)
        shares = [row for row in summary_rows(tables, models) if all(cell is None or cell.is_share for cell in row.own)]
        for part in range(0, len(shares), _ROWS):
            rows = shares[part : part + _ROWS]
            name = "results" if not part else f"results-{part // _ROWS + 1}"
            save(name, _height(rows, models), lambda axes, rows=rows: _dots(axes, rows, models))  # type: ignore[misc]
        for board in tables:
            if _share_rows(board):
                save(*_scores(board))
        diagrams = _diagrams(tables)
        if diagrams:
            save("reliability", 3.1, lambda axes: _reliability(axes, diagrams), panels=len(diagrams))
        lines = shifts(tables)
        if lines:
            save("robustness", 3.1, lambda axes: _robustness(axes, lines), panels=len(lines))
        if log is not None and sum(_is_number(step["loss"]) for step in log.steps) >= 2:
            save("loss", 3.2, lambda axes: _loss(axes, log.steps))
        curves = {} if log is None else zero_shot_curves(log)
        if curves:
            save("zero_shot", 3.2, lambda axes: _curves(axes, curves))
    except OSError as error:
        raise StorageError(f"{target}: the figures cannot be written ({error.strerror or error}).") from error
    return drawn


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _save(path: Path, height: float, fill: Callable[[Any], None], panels: int) -> Path:
    # A figure of its own, without pyplot: nothing global is changed, and no display is asked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, panels)
    lines = math.ceil(panels / columns)
    figure = Figure(figsize=(_WIDTH, height * lines), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_SOFT)
        axes.tick_params(colors=_INK, labelsize=9, length=3)
    for axes in grid[panels:]:
        axes.set_visible(False)
    fill(grid[0] if panels == 1 else list(grid[:panels]))
    # No date and no version: the same numbers give the same file.
    figure.savefig(path, metadata={"Software": None}, facecolor="white")
    return path


def _height(rows: Sequence[Row], models: Sequence[Model]) -> float:
    return 0.9 + len(rows) * (0.28 + 0.15 * len(models)) + (0.22 * len(models) if len(models) > 1 else 0)


def _plain(text: str, most: int = 46) -> str:
    """Text for a label: no mathematics, which matplotlib sees between dollar signs, and not too long."""
    text = " ".join(text.split())
    return (text if len(text) <= most else text[: most - 1] + "…").replace("$", r"\$")


def _dots(axes: Axes, rows: Sequence[Row], models: Sequence[Model]) -> None:
    """A line per row; a dot with its interval per model, chance as a short dotted line."""
    many = len(models) > 1
    for place, row in enumerate(rows):
        for line, cell in enumerate(row.own):
            if cell is None:
                continue
            y = place + (line - (len(models) - 1) / 2) * min(0.24, 0.7 / len(models))
            colour = _COLOURS[line % len(_COLOURS)]
            axes.plot([100 * cell.low, 100 * cell.high], [y, y], color=colour, linewidth=2.2, alpha=0.5)
            axes.plot(100 * cell.value, y, _MARKS[line % len(_MARKS)], color=colour, markersize=5)
            if not many:
                axes.annotate(
                    f"{100 * cell.value:.1f}",
                    (100 * cell.high, y),
                    (6, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=9,
                    color=_INK,
                    annotation_clip=False,
                )
        if row.chance is not None:
            axes.plot([100 * row.chance] * 2, [place - 0.38, place + 0.38], ":", color=_SOFT, linewidth=1.4)
    labels = [f"{_plain(row.title)}\n{_plain(row.subtitle)}" for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)
    _label(axes, "per cent, with 95 % intervals; dotted: chance" if any(row.chance for row in rows) else "per cent", "")
    if many:
        handles = [
            axes.plot(
                [], [], _MARKS[line % len(_MARKS)], color=_COLOURS[line % len(_COLOURS)], label=_plain(model.label)
            )[0]
            for line, model in enumerate(models)
        ]
        axes.figure.legend(
            handles=handles, loc="outside upper center", ncols=min(2, len(models)), frameon=False, fontsize=9
        )


def _share_rows(board: Board) -> list[Row]:
    return [row for row in score_rows(board) if all(cell is None or cell.is_share for cell in row.own)][:_ROWS]


def _scores(board: Board) -> tuple[str, float, Callable[[Any], None]]:
    """All shares of one data set as bars."""
    rows = _share_rows(board)
    models = [result.model for result in board.results]

    def fill(axes: Axes) -> None:
        thick = 0.72 / len(models)
        for line, model in enumerate(models):
            cells = [(place, row.own[line]) for place, row in enumerate(rows)]
            there = [(place, cell) for place, cell in cells if cell is not None]
            y = [place + (line - (len(models) - 1) / 2) * thick for place, _ in there]
            values = [100 * cell.value for _, cell in there]
            spans = [
                [100 * (cell.value - cell.low) for _, cell in there],
                [100 * (cell.high - cell.value) for _, cell in there],
            ]
            colour = _COLOURS[line % len(_COLOURS)]
            axes.barh(y, values, thick * 0.9, color=colour, alpha=0.42, label=_plain(model.label))
            axes.errorbar(values, y, xerr=spans, fmt="none", ecolor=_INK, elinewidth=1, capsize=2)
            for place, value in zip(y, values, strict=True):
                axes.annotate(
                    f"{value:.1f}",
                    (0, place),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8.5,
                    color=_INK,
                )
        axes.set_yticks(range(len(rows)), [_plain(row.title) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_title(_plain(board.title, 70), fontsize=10, color=_INK, loc="left")
        _label(axes, "per cent, with 95 % intervals", "")
        if len(models) > 1:
            axes.figure.legend(loc="outside lower center", ncols=min(2, len(models)), frameon=False, fontsize=9)

    name = re.sub(r"[^\w-]+", "-", f"{board.dataset['name']}-{board.task}")
    place = board.anchor.removeprefix("set-")
    return f"scores-{place}-{name}", 1.1 + max(1, len(rows)) * (0.16 + 0.19 * len(models)), fill


def _diagrams(tables: Sequence[Board]) -> list[tuple[Board, Result, Reliability]]:
    """One per data set and model; where they are too many, first one of each data set."""
    found: list[tuple[int, Board, Result, Reliability]] = []
    for board in tables:
        for place, result in enumerate(board.results):
            with damaged(result.path):
                diagram = reliability(result.details)
            if diagram is not None:
                found.append((place, board, result, diagram))
    return [entry[1:] for entry in sorted(found, key=lambda entry: entry[0])[:_PANELS]]


def _reliability(panels: Any, diagrams: Sequence[tuple[Board, Result, Reliability]]) -> None:
    for axes, (board, result, diagram) in zip(panels if isinstance(panels, list) else [panels], diagrams, strict=True):
        for entry in diagram.bins:
            axes.bar(
                100 * entry.low, 100 * entry.accuracy, 100 * (entry.high - entry.low),
                align="edge", color=_BAND, edgecolor="white", linewidth=0.8,
            )  # fmt: skip
        axes.plot([0, 100], [0, 100], "--", color=_SOFT, linewidth=1)
        x = [100 * entry.confidence for entry in diagram.bins]
        axes.plot(
            x, [100 * entry.accuracy for entry in diagram.bins], "o", color=_COLOURS[0], markersize=4, clip_on=False
        )
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_title(
            f"{_plain(board.title, 42)}\n{_plain(result.model.label, 42)}", fontsize=9, color=_INK, loc="left"
        )
        axes.annotate(
            f"ECE {diagram.error.text}", (0.04, 0.93), xycoords="axes fraction", va="top", fontsize=9, color=_INK
        )
        _label(axes, "confidence, %", "right, %")


def _robustness(panels: Any, lines: Sequence[Shift]) -> None:
    for axes, shift in zip(panels if isinstance(panels, list) else [panels], lines, strict=True):
        axes.set_xscale("logit")
        axes.set_yscale("logit")
        x = [point[2] for point in shift.fit.points]
        y = [point[3] for point in shift.fit.points]
        axes.plot(x, y, "o", color=_SOFT, markersize=2.5, alpha=0.5, label="published models")
        own = [one.imagenet.value for one in shift.standings]
        ends = [min(*x, *own), max(*x, *own)]
        steps = [ends[0] + (ends[1] - ends[0]) * step / 50 for step in range(51)]
        axes.plot(steps, [shift.fit.expected(value) for value in steps], color=_SOFT, linewidth=1)
        for line, one in enumerate(shift.standings):
            axes.errorbar(
                one.imagenet.value, one.shifted.value,
                yerr=[[one.shifted.value - one.shifted.low], [one.shifted.high - one.shifted.value]],
                fmt=_MARKS[line % len(_MARKS)], color=_COLOURS[line % len(_COLOURS)],
                markersize=6, capsize=2, label=_plain(one.model.label, 40),
            )  # fmt: skip
        for axis, values in (
            (axes.xaxis, [*x, *own]),
            (axes.yaxis, [*y, *(one.shifted.value for one in shift.standings)]),
        ):
            _shares(axis, min(values), max(values))
        _label(axes, "ImageNet, %", f"{shift.title}, %")
    # One legend for all panels.
    handles, labels = (panels[0] if isinstance(panels, list) else panels).get_legend_handles_labels()
    figure = (panels[0] if isinstance(panels, list) else panels).figure
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def _shares(axis: Any, low: float, high: float) -> None:
    """Ticks in per cent on a logit scale, at places that stand apart."""
    marks = [mark for mark in (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98) if low <= mark <= high]
    axis.set_ticks(marks, [f"{100 * mark:g}" for mark in marks])
    axis.set_ticks([], minor=True)


def _loss(axes: Axes, steps: Sequence[dict[str, Any]]) -> None:
    size = math.ceil(len(steps) / _POINTS)
    xs, means, lows, highs = [], [], [], []
    for start in range(0, len(steps), size):
        group = steps[start : start + size]
        values = [step["loss"] for step in group if _is_number(step["loss"])]
        xs.append(sum(step["step"] for step in group) / len(group))
        # A gap where no step of a group was finite.
        means.append(sum(values) / len(values) if values else math.nan)
        lows.append(min(values, default=math.nan))
        highs.append(max(values, default=math.nan))
    axes.fill_between(xs, lows, highs, color=_BAND, linewidth=0, label="range of single steps")
    axes.plot(xs, means, color=_COLOURS[0], linewidth=1.6, label=f"mean of {size} steps" if size > 1 else "loss")
    axes.grid(axis="y", color=_GRID)
    _label(axes, "step", "contrastive loss")
    axes.legend(frameon=False, fontsize=9)


def _curves(axes: Axes, curves: dict[str, list[tuple[int, float]]]) -> None:
    for line, (name, points) in enumerate(curves.items()):
        xs, ys = zip(*points, strict=True)
        axes.plot(
            xs, [100 * y for y in ys], marker=_MARKS[line % len(_MARKS)], markersize=4, linewidth=1.4,
            color=_COLOURS[line % len(_COLOURS)], label=_plain(name),
        )  # fmt: skip
    axes.grid(axis="y", color=_GRID)
    _label(axes, "step", "zero-shot, %")
    axes.legend(frameon=False, fontsize=9)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=_INK, fontsize=9)
    axes.set_ylabel(y, color=_INK, fontsize=9)

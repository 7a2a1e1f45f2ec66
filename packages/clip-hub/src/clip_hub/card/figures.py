"""The pictures of a model card as PNG files: the loss over a run, zero-shot accuracy over it, and the results.

They need matplotlib, the extra `card`. Without it a card has no pictures and is otherwise the same.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_core.errors import ConfigError
from clip_hub.card.folder import Run
from clip_hub.card.results import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "has_matplotlib"]

_INK, _LINE, _BAND = "#26323c", "#1f5fa8", "#bcd3ec"
_POINTS = 200
_ZERO_SHOT = ("zero_shot", "zeroshot", "zero-shot")
_BARS = 24
_CURVES = 8


def has_matplotlib() -> bool:
    """Whether `draw` can work here."""
    try:
        return importlib.util.find_spec("matplotlib") is not None
    except ValueError:  # it was taken out of sys.modules
        return False


def draw(
    folder: Path, run: Run | None, rows: Sequence[Row], curves: Mapping[str, Sequence[tuple[int, Row]]] | None = None
) -> list[Path]:
    """Write those of loss.png, zero_shot.png and results.png into `folder` that there are numbers for.

    Args:
        folder: made where it is missing.
        run: for the loss, and for zero-shot accuracies that its steps may have.
        rows: results of the published weights.
        curves: results over the run's epochs, as `results.read_curves` gives them; they go before those of steps.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if not has_matplotlib():
        raise ConfigError("The figures of a model card need matplotlib: pip install 'clip-hub[card]'.")
    folder.mkdir(parents=True, exist_ok=True)
    steps = [] if run is None else run.steps
    epochs = {name: points for name, points in (curves or {}).items() if all(row.is_share for _, row in points)}
    by_step = _zero_shot(steps)
    shares = [row for row in rows if row.is_share][:_BARS]
    drawn = []
    if sum(_finite(step["loss"]) for step in steps) >= 2:
        drawn.append(_save(folder / "loss.png", 3.2, lambda axes: _loss(axes, steps)))
    if epochs:
        drawn.append(_save(folder / "zero_shot.png", 3.2, lambda axes: _epochs(axes, epochs)))
    elif by_step:
        drawn.append(_save(folder / "zero_shot.png", 3.2, lambda axes: _curves(axes, by_step)))
    if shares:
        drawn.append(_save(folder / "results.png", 0.8 + 0.32 * len(shares), lambda axes: _bars(axes, shares)))
    return drawn


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _zero_shot(steps: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Metric -> (step, value) for records of steps that have zero-shot accuracies, under whatever name."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step in steps:
        for name, value in step.items():
            if any(word in name for word in _ZERO_SHOT) and _finite(value):
                found.setdefault(name, []).append((step["step"], value))
    return found


def _save(path: Path, height: float, fill: Any) -> Path:
    # A figure of its own, without pyplot: nothing global is changed, and no display is asked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(7.0, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    fill(axes)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)
    # No date and no version: the same numbers give the same file.
    figure.savefig(path, metadata={"Software": None})
    return path


def _loss(axes: Axes, steps: Sequence[dict[str, Any]]) -> None:
    size = math.ceil(len(steps) / _POINTS)
    groups = [steps[start : start + size] for start in range(0, len(steps), size)]
    xs, means, lows, highs = [], [], [], []
    for group in groups:
        values = [step["loss"] for step in group if _finite(step["loss"])]
        xs.append(sum(step["step"] for step in group) / len(group))
        # A gap where no step of a group was finite.
        means.append(sum(values) / len(values) if values else math.nan)
        lows.append(min(values, default=math.nan))
        highs.append(max(values, default=math.nan))
    if size > 1:
        axes.fill_between(xs, lows, highs, color=_BAND, linewidth=0, label="range of single steps")
        axes.plot(xs, means, color=_LINE, linewidth=1.6, label=f"mean of {size} steps")
        axes.legend(frameon=False, fontsize=9)
    else:
        axes.plot(xs, means, color=_LINE, linewidth=1.6)
    _label(axes, "step", "contrastive loss")


def _epochs(axes: Axes, curves: Mapping[str, Sequence[tuple[int, Row]]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for place, (name, points) in enumerate(list(curves.items())[:_CURVES]):
        points = sorted(points, key=lambda point: point[0])
        xs = [epoch for epoch, _ in points]
        color = f"C{place}"
        lows, highs = (
            [100 * value for value in side] for side in zip(*((r.low, r.high) for _, r in points), strict=True)
        )
        axes.fill_between(xs, lows, highs, color=color, alpha=0.15, linewidth=0)
        values = [100 * row.value for _, row in points]
        axes.plot(xs, values, color=color, marker="o", markersize=3, linewidth=1.4, label=name)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label(axes, "epoch", "per cent, with 95 % intervals")
    axes.legend(frameon=False, fontsize=9)


def _curves(axes: Axes, curves: dict[str, list[tuple[int, float]]]) -> None:
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.4, label=name)
    _label(axes, "step", "zero-shot accuracy")
    axes.legend(frameon=False, fontsize=9)


def _bars(axes: Axes, rows: Sequence[Row]) -> None:
    places = range(len(rows))[::-1]  # the first at the top
    values = [100 * row.value for row in rows]
    spans = [
        [100 * max(0.0, row.value - row.low) for row in rows],
        [100 * max(0.0, row.high - row.value) for row in rows],
    ]
    axes.barh(places, values, color=_BAND, height=0.62)
    axes.errorbar(values, places, xerr=spans, fmt="none", ecolor=_INK, elinewidth=1, capsize=2.5)
    axes.set_yticks(list(places), [f"{row.dataset}: {row.metric_name}" for row in rows])
    ends = [value + above for value, above in zip(values, spans[1], strict=True)]
    # Behind the interval, where neither it nor the bar is.
    for place, value, end in zip(places, values, ends, strict=True):
        axes.annotate(
            f"{value:.1f}", (end, place), (6, 0), textcoords="offset points", va="center", fontsize=8.5, color=_INK
        )
    # As far as the numbers go, with room for the last of them in words.
    axes.set_xlim(0, 1.12 * max(*ends, 1.0))
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= min(100.0, 1.12 * max(*ends, 1.0))])
    _label(axes, "per cent, with 95 % intervals", "")


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=_INK, fontsize=9)
    axes.set_ylabel(y, color=_INK, fontsize=9)

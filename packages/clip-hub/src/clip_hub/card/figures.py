"""The pictures of a model card as PNG files: the loss over a run, zero-shot accuracy over it, and the results.

They need matplotlib, the extra `card`. Without it a card has no pictures and is otherwise the same.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
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


def has_matplotlib() -> bool:
    """Whether `draw` can work here."""
    try:
        return importlib.util.find_spec("matplotlib") is not None
    except ValueError:  # it was taken out of sys.modules
        return False


def draw(folder: Path, run: Run | None, rows: Sequence[Row]) -> list[Path]:
    """Write those of loss.png, zero_shot.png and results.png into `folder` that there are numbers for.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if not has_matplotlib():
        raise ConfigError("The figures of a model card need matplotlib: pip install 'clip-hub[card]'.")
    folder.mkdir(parents=True, exist_ok=True)
    steps = [] if run is None else run.steps
    curves = _zero_shot(steps)
    shares = [row for row in rows if row.is_share][:_BARS]
    drawn = []
    if sum(_finite(step["loss"]) for step in steps) >= 2:
        drawn.append(_save(folder / "loss.png", 3.2, lambda axes: _loss(axes, steps)))
    if curves:
        drawn.append(_save(folder / "zero_shot.png", 3.2, lambda axes: _curves(axes, curves)))
    if shares:
        drawn.append(_save(folder / "results.png", 1.0 + 0.32 * len(shares), lambda axes: _bars(axes, shares)))
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
    axes.fill_between(xs, lows, highs, color=_BAND, linewidth=0, label="range of single steps")
    axes.plot(xs, means, color=_LINE, linewidth=1.6, label=f"mean of {size} steps" if size > 1 else "loss")
    _label(axes, "step", "contrastive loss")
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
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            f"{value:.1f}", (0, place), (4, 0), textcoords="offset points", va="center", fontsize=8.5, color=_INK
        )
    axes.set_xlim(0, 100)
    _label(axes, "per cent, with 95 % intervals", "")


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=_INK, fontsize=9)
    axes.set_ylabel(y, color=_INK, fontsize=9)

"""Whether a model's confidence can be believed: the reliability diagram of a record's `details["calibration"]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clip_eval.report.numbers import Number, percent, read_number
from clip_eval.report.plots import Plot, linear

__all__ = ["Reliability", "ReliabilityBin", "reliability"]

_SHARES = [(0.0, "0 %"), (0.25, "25 %"), (0.5, "50 %"), (0.75, "75 %"), (1.0, "100 %")]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions of like confidence; the means are of those in it."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """What the predictions' confidences are worth."""

    error: Number
    mean: float
    """Mean confidence."""
    accuracy: float
    bins: list[ReliabilityBin]
    """Those that hold a prediction."""

    @property
    def verdict(self) -> str:
        """One sentence."""
        gap = self.mean - self.accuracy
        if abs(gap) < 0.01:
            return "On average it is as sure as it is right."
        claim = f"it claims {percent(self.mean)} and is right in {percent(self.accuracy)}"
        return f"On average it is too sure of itself: {claim}." if gap > 0 else f"On average it is too modest: {claim}."

    @property
    def plot(self) -> Plot:
        """Accuracy over confidence; on the diagonal both agree."""
        plot = linear(
            x=(0, 1),
            y=(0, 1),
            x_label="confidence that the model states",
            y_label="share that is right",
            description="Reliability diagram. "
            + "; ".join(
                f"stated {percent(one.confidence)}, right {percent(one.accuracy)}, n {one.n}" for one in self.bins
            ),
            x_ticks=_SHARES,
            y_ticks=_SHARES,
        )
        for entry in self.bins:
            label = f"{percent(entry.low)} to {percent(entry.high)}: right {percent(entry.accuracy)} of {entry.n:,}"
            plot.add_bar(entry.low, entry.high, entry.accuracy, label)
        plot.add_line([(0, 0), (1, 1)], "ideal")
        for entry in self.bins:
            plot.add_dot(
                entry.confidence, entry.accuracy, f"stated {percent(entry.confidence)}, right {percent(entry.accuracy)}"
            )
        return plot


def reliability(details: Mapping[str, Any]) -> Reliability | None:
    """None where the record has no calibration, or no bin with a prediction."""
    data = details.get("calibration")
    if not isinstance(data, Mapping):
        return None
    bins = [
        ReliabilityBin(
            float(entry["low"]),
            float(entry["high"]),
            int(entry["n"]),
            float(entry["confidence"]),
            float(entry["accuracy"]),
        )
        for entry in data["bins"]
        if entry["n"]
    ]
    if not bins:
        return None
    count = sum(entry.n for entry in bins)
    return Reliability(
        error=read_number("expected_calibration_error", data["expected_calibration_error"]),
        mean=sum(entry.n * entry.confidence for entry in bins) / count,
        accuracy=sum(entry.n * entry.accuracy for entry in bins) / count,
        bins=bins,
    )

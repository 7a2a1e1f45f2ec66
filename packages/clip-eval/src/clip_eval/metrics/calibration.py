"""Whether a model that says 80 % is right in 80 of 100 cases: reliability table and expected calibration error.

The confidence of a prediction is the largest softmax of `logit_scale` x cosine over the classes (Guo et al. 2017,
section 2). That is the model's own claim for CLIP's loss; models with a sigmoid loss make no such claim, and the table
then says how far the softmax is from one. Shapes: N images, C classes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from clip_eval.metrics.intervals import Metric

__all__ = ["BINS", "Bin", "Calibration", "Confidence", "calibrate", "confidence"]

BINS = 15
"""Of equal width, as Guo et al. have it."""
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Confidence:
    """Per image, float64 (N,): how sure the model was of its answer, and whether it was right."""

    stated: Tensor
    """In (0, 1]."""
    right: Tensor
    """0 or 1; with a tie for the best class the chance to be right."""

    @staticmethod
    def join(parts: list[Confidence]) -> Confidence:
        """The images of all parts in their order."""
        return Confidence(torch.cat([part.stated for part in parts]), torch.cat([part.right for part in parts]))


@dataclass(frozen=True, slots=True)
class Bin:
    """The images whose confidence is in [low, high); the last bin holds its upper end too."""

    low: float
    high: float
    n: int
    confidence: float | None
    """Mean of the images in it; None without any."""
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the predictions' confidences are worth."""

    error: Metric
    """Mean over the images of |accuracy - confidence| of their bin."""
    bins: tuple[Bin, ...]
    confidence: float
    """Mean over all images; above the accuracy the model is too sure of itself."""

    def to_json(self) -> dict[str, Any]:
        """Plain types for strict JSON."""
        return {
            "expected_calibration_error": self.error.to_json(),
            "mean_confidence": self.confidence,
            "bins": [asdict(entry) for entry in self.bins],
        }


def confidence(scores: Tensor, right: Tensor, logit_scale: float) -> Confidence:
    """From cosines (N, C) and the expected hits (N,) of the predictions."""
    logits = scores.double() * logit_scale
    return Confidence((logits.amax(dim=1) - logits.logsumexp(dim=1)).exp(), right.double())


def calibrate(given: Confidence, *, bins: int = BINS) -> Calibration:
    """Expected calibration error (Naeini et al. 2015), equal to torchmetrics' `CalibrationError(norm="l1")`.

    torchmetrics gives images of confidence 1 a bin of their own; here they are in the last one. Interval: normal.
    Chance within the bins adds to the error and never takes from it, so the lower limit also leaves room for the most
    that it adds, which is the error that a perfectly calibrated model shows with these counts.
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    place = (torch.bucketize(given.stated, edges, right=True) - 1).clamp(0, bins - 1)
    counts = torch.bincount(place, minlength=bins).double()
    stated, right = (
        torch.zeros(bins, dtype=torch.float64).index_add_(0, place, values) / counts.clamp(min=1)
        for values in (given.stated, given.right)
    )
    share = counts / len(place)
    value = float((share * (stated - right).abs()).sum())
    smooth = (right * counts + 1) / (counts + 2)
    spread = share * (smooth * (1 - smooth) / counts.clamp(min=1)).sqrt()
    half = _Z * float((spread**2).sum().sqrt())
    # The mean of |x| for a normal x of mean 0 is sqrt(2 / pi) standard deviations.
    added = math.sqrt(2 / math.pi) * float(spread.sum())
    table = tuple(
        Bin(low, high, int(n), mean if n else None, accuracy if n else None)
        for low, high, n, mean, accuracy in zip(
            edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), stated.tolist(), right.tolist(), strict=True
        )
    )
    error = Metric(
        value=value,
        n=len(place),
        low=max(0.0, value - added - half),
        high=min(1.0, value + half),
        interval="normal; the lower limit allows for what chance within the bins adds",
    )
    return Calibration(error, table, float(given.stated.mean()))

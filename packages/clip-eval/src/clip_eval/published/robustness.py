"""Effective robustness: how much better a model does on a shift than its ImageNet accuracy lets one expect.

Taori et al. 2020 (arXiv 2007.00644): over many models the accuracy on a shift is close to a line in ImageNet accuracy
when both are on the logit scale. The line is fitted to the published rows; a model's effective robustness is how far it
stands above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from clip_core.errors import ConfigError
from clip_eval.catalogue import find
from clip_eval.published.rows import published_rows

__all__ = ["SHIFTS", "RobustnessFit", "fit_robustness"]

SHIFTS = ("imagenetv2", "imagenet_sketch", "imagenet-a", "imagenet-r", "objectnet", "imagenet-o")
"""Names in the catalogue. ImageNet-O follows ImageNet so loosely (0.17) that its line says nothing."""

_LEAST = 0.05
"""Rows up to this ImageNet accuracy did not learn the task. Choosing by the shift instead would bend the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustnessFit:
    """The line `logit(shift) = intercept + slope * logit(ImageNet)` by least squares over the published rows."""

    dataset: str
    slope: float
    intercept: float
    correlation: float
    """Pearson's, of the logits."""
    spread: float
    """Standard deviation of what the line leaves over, in logits."""
    points: tuple[tuple[str, str, float, float], ...]
    """Model, tag, accuracy on ImageNet and on the shift of each row that was fitted."""

    def expected(self, imagenet: float) -> float:
        """The accuracy on the shift that a model of this ImageNet accuracy, strictly between 0 and 1, lets expect."""
        return 1 / (1 + math.exp(-(self.intercept + self.slope * _logit(imagenet))))

    def effective(self, imagenet: float, shifted: float) -> float:
        """Effective robustness, in accuracy: above 0 is better than expected."""
        return shifted - self.expected(imagenet)


@cache
def fit_robustness(dataset: str) -> RobustnessFit:
    """The line of one of `SHIFTS`; `ConfigError` for another data set."""
    name = find(dataset).name
    if name not in SHIFTS:
        raise ConfigError(f"{dataset}: no shift of ImageNet; allowed: {', '.join(SHIFTS)}.")
    points = []
    for row in published_rows():
        imagenet, shifted = row.score("imagenet1k"), row.score(name)
        if imagenet is not None and shifted is not None and imagenet > _LEAST:
            points.append((row.model, row.tag, imagenet, shifted))
    x = [_logit(point[2]) for point in points]
    y = [_logit(point[3]) for point in points]
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    square_x = math.fsum((one - mean_x) ** 2 for one in x)
    square_y = math.fsum((one - mean_y) ** 2 for one in y)
    product = math.fsum((one - mean_x) * (other - mean_y) for one, other in zip(x, y, strict=True))
    slope = product / square_x
    left_over = max(0.0, square_y - slope * product)
    return RobustnessFit(
        dataset=name,
        slope=slope,
        intercept=mean_y - slope * mean_x,
        correlation=product / math.sqrt(square_x * square_y),
        spread=math.sqrt(left_over / (len(points) - 2)),
        points=tuple(points),
    )


def _logit(share: float) -> float:
    if not 0 < share < 1:
        raise ValueError(f"an accuracy of {share} has no logit; it must lie strictly between 0 and 1")
    return math.log(share / (1 - share))

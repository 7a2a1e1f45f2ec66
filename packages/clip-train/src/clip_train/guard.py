"""Keeps a number that is not finite out of the weights: the step is skipped, and a run of such steps ends training."""

from __future__ import annotations

import logging
import math

from clip_core.errors import ClipError

__all__ = ["MOST_IN_A_ROW", "FiniteGuard", "TrainingDiverged"]

_log = logging.getLogger(__name__)

MOST_IN_A_ROW = 10


class TrainingDiverged(ClipError):
    """The loss or its gradient was not finite in too many steps in a row; no weights were written."""


class FiniteGuard:
    """Decides about every update and counts those that were skipped."""

    def __init__(self, most_in_a_row: int = MOST_IN_A_ROW) -> None:
        self.skipped = 0
        self._in_a_row = 0
        self._most = most_in_a_row

    def admits(self, step: int, loss: float, grad_norm: float) -> bool:
        """Whether the update of `step` may be applied; names it in the log and counts it when not."""
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self._in_a_row = 0
            return True
        self.skipped += 1
        self._in_a_row += 1
        _log.warning("step %d: loss %s, gradient norm %s; the update is skipped", step, loss, grad_norm)
        return False

    def check(self, step: int) -> None:
        """Raises `TrainingDiverged` when the limit of skipped steps in a row is reached at `step`."""
        if self._in_a_row >= self._most:
            raise TrainingDiverged(
                f"The loss or its gradient was not finite in {self._in_a_row} steps in a row, the last at step {step}. "
                "No weights were written. Lower --lr, lengthen --warmup, set --grad-clip-norm, or use --precision fp32."
            )

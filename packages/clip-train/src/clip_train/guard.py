"""Keeps a number that is not finite out of the weights: the step is skipped, and a run of such steps ends training.

The decision is made on the device and travels to the optimiser there (`optim.take_step`), so the program need not wait
for it; what it was is counted here when the numbers have arrived. The norm is that of the gradients after they were
averaged over the processes, so every process decides alike.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from clip_core.errors import ClipError

__all__ = ["MOST_IN_A_ROW", "Guard", "TrainingDiverged"]

_log = logging.getLogger(__name__)

MOST_IN_A_ROW = 10


class TrainingDiverged(ClipError):
    """The loss or its gradient was not finite in too many steps in a row; no weights were written."""


class Guard:
    """Decides about every update and counts those that were skipped."""

    def __init__(self, most_in_a_row: int = MOST_IN_A_ROW) -> None:
        self.skipped = 0
        self.in_a_row = 0
        self._most = most_in_a_row

    def admits(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Whether the update may be applied, a boolean scalar where `loss` and `norm` are.

        Both must be the same on all processes: the loss of the whole batch, the norm of its gradient.
        """
        return torch.isfinite(loss) & torch.isfinite(norm)

    def note(self, step: int, loss: float, norm: float, *, updated: bool) -> None:
        """Count what was decided about `step` (from 1), and name it in the log where it was skipped."""
        if updated:
            self.in_a_row = 0
            return
        self.skipped += 1
        self.in_a_row += 1
        _log.warning("step %d: loss %s, gradient norm %s; the update is skipped", step, loss, norm)

    def check(self, step: int) -> None:
        """Raises `TrainingDiverged` when the limit of skipped steps in a row is reached at `step`."""
        if self.in_a_row >= self._most:
            raise TrainingDiverged(
                f"The loss or its gradient was not finite in {self.in_a_row} steps in a row, the last at step {step}. "
                "No weights were written. Lower --lr, lengthen --warmup, set --grad-clip-norm, or use --precision fp32."
            )

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from `state_dict`."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]

"""Keeps harm out of the weights: a step that is not finite, or, where asked for, whose gradient is a spike, is skipped.

The decision is made on the device and travels to the optimiser there (`optim.take_step`), so the program need not wait
for it; what it was is counted here when the numbers have arrived. The norm is that of the gradients after they were
averaged over the processes, so every process decides alike. What happens after too many skipped steps in a row is the
business of `rollback`, or the end of training.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor

from clip_core.errors import ClipError

__all__ = ["MOST_IN_A_ROW", "Guard", "TrainingDiverged"]

_log = logging.getLogger(__name__)

MOST_IN_A_ROW = 10

# Norms are compared as logarithms. Before so many steps there is nothing to compare with; after so many, older ones
# fade; and a run whose norm hardly varies has no spike below 5 %.
_LEARN, _MEMORY, _LEAST_DEVIATION = 20, 100, 0.05


class TrainingDiverged(ClipError):
    """The loss or its gradient was not finite, or a spike, in too many steps in a row; no weights were written."""


class Guard:
    """Decides about every update and counts those that were skipped."""

    def __init__(self, most_in_a_row: int = MOST_IN_A_ROW, *, spike: float | None = None) -> None:
        """Args:
        most_in_a_row: so many skipped steps in a row end training, or have it rolled back.
        spike: skip steps whose gradient norm, as a logarithm, lies so many standard deviations above those before.
        """
        self.skipped = 0
        self.spikes = 0
        """Those of the skipped steps whose numbers were finite."""
        self.in_a_row = 0
        self.rollbacks = 0
        """How often training went back to a checkpoint."""
        self.can_roll_back = False
        """Somebody else looks after too many steps in a row."""
        self._most = most_in_a_row
        self._spike = spike
        # Mean, variance and number of the admitted log norms.
        self._norms = torch.tensor([0.0, 0.0, 0.0])

    @property
    def exhausted(self) -> bool:
        """Whether the limit of skipped steps in a row is reached."""
        return self.in_a_row >= self._most

    def admits(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Whether the update may be applied, a boolean scalar where `loss` and `norm` are.

        Both must be the same on all processes: the loss of the whole batch, the norm of its gradient.
        """
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        if self._spike is None:
            return finite
        mean, variance, count = self._norms = self._norms.to(norm.device)
        value = norm.detach().float().clamp(min=1e-30).log()
        deviation = variance.sqrt().clamp(min=_LEAST_DEVIATION)
        admitted: Tensor = finite & ((count < _LEARN) | (value <= mean + self._spike * deviation))
        share = 1 / (count + 1).clamp(max=_MEMORY)
        difference = value - mean
        learned = torch.stack(
            [mean + share * difference, (1 - share) * (variance + share * difference.square()), count + 1]
        )
        self._norms = torch.where(admitted, learned, self._norms)
        return admitted

    def note(self, step: int, loss: float, norm: float, *, updated: bool) -> None:
        """Count what was decided about `step` (from 1), and name it in the log where it was skipped."""
        if updated:
            self.in_a_row = 0
            return
        self.skipped += 1
        self.in_a_row += 1
        spike = math.isfinite(loss) and math.isfinite(norm)
        self.spikes += spike
        why = ", a spike" if spike and self._spike is not None else ""
        _log.warning("step %d: loss %s, gradient norm %s%s; the update is skipped", step, loss, norm, why)

    def check(self, step: int) -> None:
        """Raises `TrainingDiverged` when the limit of skipped steps is reached at `step`, and nobody can help."""
        if self.exhausted and not self.can_roll_back:
            raise self.diverged(step, "There is no checkpoint to go back to.")

    def diverged(self, step: int, more: str) -> TrainingDiverged:
        """The error for too many skipped steps in a row."""
        what = "not finite" if self._spike is None else "not finite, or a spike,"
        return TrainingDiverged(
            f"The loss or its gradient was {what} in {self.in_a_row} steps in a row, the last at step {step}. {more} "
            "No weights were written. Lower --lr, lengthen --warmup, set --grad-clip-norm, or use --precision fp32."
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "skipped": self.skipped,
            "spikes": self.spikes,
            "in_a_row": self.in_a_row,
            "rollbacks": self.rollbacks,
            "norms": self._norms.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.skipped, self.spikes = state["skipped"], state["spikes"]
        self.in_a_row, self.rollbacks = state["in_a_row"], state["rollbacks"]
        self._norms = torch.tensor(state["norms"])

"""The stages of one step on the device, measured without making the program wait for it.

On a CPU a stage ends when the program gets there. On a GPU the program is ahead of the device, so each mark is an event
in the device's own queue; how far apart they are is read a step later, when the numbers of the step have arrived and
the events have passed. What this room leaves out: what workers do meanwhile (`data.spent`), and sums (`split`).
"""

from __future__ import annotations

import time
from typing import Any

import torch

__all__ = ["STAGES", "Laps", "StepClock"]

STAGES = ("transfer", "forward", "loss", "backward", "optimiser", "communication")
"""Stages that the device works on. "loss" is the loss over all pairs with what it sends; "backward" holds the averaging
of gradients, of which most happens meanwhile; "communication" is the wait for the slowest process that ends the step.
"""


class Laps:
    """The marks of one step, of which `seconds` can be asked when the device has passed the last of them."""

    def __init__(self, marks: list[tuple[str, Any]], before: Any) -> None:
        self._marks = marks
        self._before = before

    def seconds(self) -> dict[str, float]:
        """Stage -> seconds, all of `STAGES`."""
        found = dict.fromkeys(STAGES, 0.0)
        last: Any = None
        for stage, at in self._marks:
            if last is not None:
                found[stage] += _between(last, at)
            last = at
        return found

    def idle(self) -> float | None:
        """Seconds from the last mark of the step before to the first of this one; None for the first step."""
        return None if self._before is None else _between(self._before, self._marks[0][1])


class StepClock:
    """Marks the ends of stages, step after step."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []
        self._before: Any = None

    def start(self) -> None:
        """A step begins: the data is here."""
        self._marks = [("", self._now())]

    def mark(self, stage: str) -> None:
        """Everything since the last mark was `stage`, one of `STAGES`; a stage may come several times."""
        self._marks.append((stage, self._now()))

    def take(self) -> Laps:
        """The marks since `start`."""
        laps = Laps(self._marks, self._before)
        self._before = self._marks[-1][1] if self._marks else None
        return laps

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def _between(first: Any, last: Any) -> float:
    if isinstance(first, float):
        return float(last - first)
    return float(first.elapsed_time(last)) / 1000

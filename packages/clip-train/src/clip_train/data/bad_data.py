"""When so many samples cannot be used that a run should not go on: `--max-bad-fraction`.

Every process sees the sums over all of them, so all stop after the same step. The sums are part of a checkpoint
(`trainer.Running.parts`): a run that is stopped often forgets nothing, and one that goes back to a checkpoint counts
from there. What this room leaves out: which samples these are (`metrics`), and damage that is found before training
(`shards`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clip_core.errors import DataError

__all__ = ["LEAST", "BadDataLimit"]

LEAST = 100
"""So many slots may be lost before any fraction is looked at."""


class BadDataLimit:
    """Takes the records of a run and passes them on to `record`."""

    def __init__(self, record: Callable[[dict[str, Any]], None], fraction: float) -> None:
        """`fraction` of all slots may be lost."""
        self._record = record
        self._fraction = fraction
        self._lost = 0
        self._seen = 0

    def __call__(self, record: dict[str, Any]) -> None:
        """Write one step's record; raises `DataError` once too much is lost."""
        self._record(record)
        self._lost += record["skipped_samples"]
        self._seen += record["batch"]
        if self._lost > max(LEAST, self._fraction * self._seen):
            raise DataError(
                f"{self._lost} of {self._seen} samples could not be used, more than --max-bad-fraction "
                f"{self._fraction:g} allows. The log names the first of each shard with their reasons; look at the "
                "data, or allow more."
            )

    def state_dict(self) -> dict[str, Any]:
        """The slots of all processes that were lost, and all that were seen."""
        return {"lost": self._lost, "seen": self._seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from there."""
        self._lost, self._seen = state_dict["lost"], state_dict["seen"]

"""Which sample comes when: a permutation per pass over the data, as a pure function with no state and no memory.

A run is one line of slots, `step * batch_size + slot`. Slot g is position `g % count` of pass `g // count`, so a batch
may straddle two passes, nothing is dropped at the end of a pass and nothing is repeated within one.
What this room leaves out: what a sample is, and who reads it.
"""

from __future__ import annotations

import math

from clip_core.errors import DataError
from clip_train.keyed import ORDER, mix

__all__ = ["Order"]

_ROUNDS = 8


class Order:
    """The order of `count` samples under `seed`, a new one for every pass.

    A generalised Feistel network over a rectangle that just holds `count` cells (Black and Rogaway 2002); the few
    cells beyond `count` are walked over.
    """

    def __init__(self, seed: int, count: int) -> None:
        """Raises `DataError` when there is no sample to order."""
        if count < 1:
            raise DataError("The training data holds no sample.")
        self.seed = seed
        self.count = count
        self._rows = math.isqrt(count - 1) + 1
        self._columns = -(-count // self._rows)
        self._keys: tuple[int, tuple[int, ...]] = (-1, ())

    def sample(self, epoch: int, position: int) -> int:
        """The sample at `position` of pass `epoch`; over all positions below `count`, every sample exactly once."""
        keys = self._epoch_keys(epoch)
        cell = position
        while True:
            row, column = divmod(cell, self._columns)
            for number in range(0, _ROUNDS, 2):
                row = (row + mix(keys[number], column)) % self._rows
                column = (column + mix(keys[number + 1], row)) % self._columns
            cell = row * self._columns + column
            if cell < self.count:
                return cell

    def substitute(self, epoch: int, position: int, attempt: int) -> int:
        """The sample that takes the place of a bad one at `position`, and of bad substitutes before `attempt`.

        Half a pass further on, so that a batch does not hold the same pair twice.
        """
        return self.sample(epoch, (position + self.count // 2 + attempt) % self.count)

    def _epoch_keys(self, epoch: int) -> tuple[int, ...]:
        if self._keys[0] != epoch:
            self._keys = (epoch, tuple(mix(ORDER, self.seed, epoch, number) for number in range(_ROUNDS)))
        return self._keys[1]

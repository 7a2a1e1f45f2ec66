"""Which sample comes when: a permutation per pass over the data, as a pure function with no state and no memory.

A run is one line of slots, `step * batch_size + slot`. Slot g is position `g % count` of pass `g // count`, so a batch
may straddle two passes, nothing is dropped at the end of a pass and nothing is repeated within one.
What this room leaves out: what a sample is, who reads it, parts that come more often (`mixtures`), and shards that
should be read one after the other (`windows`).
"""

from __future__ import annotations

import math
from typing import Any

from clip_core.errors import DataError
from clip_train.keyed import ORDER, mix

__all__ = ["Order", "Permutation"]

_ROUNDS = 8


class Permutation:
    """A permutation of 0 to count - 1 under a key, in no memory.

    A generalised Feistel network over a rectangle that just holds `count` cells (Black and Rogaway 2002); the few
    cells beyond `count` are walked over.
    """

    __slots__ = ("_columns", "_keys", "_rows", "count")

    def __init__(self, count: int, *key: int) -> None:
        self.count = count
        self._rows = math.isqrt(count - 1) + 1
        self._columns = -(-count // self._rows)
        self._keys = tuple(mix(*key, number) for number in range(_ROUNDS))

    def at(self, position: int) -> int:
        """Where `position` goes; over all positions below `count`, every number exactly once."""
        cell, keys = position, self._keys
        while True:
            row, column = divmod(cell, self._columns)
            for number in range(0, _ROUNDS, 2):
                row = (row + mix(keys[number], column)) % self._rows
                column = (column + mix(keys[number + 1], row)) % self._columns
            cell = row * self._columns + column
            if cell < self.count:
                return cell


class Order:
    """The order of `count` samples under `seed`, a new one for every pass."""

    def __init__(self, seed: int, count: int) -> None:
        """Raises `DataError` when there is no sample to order."""
        if count < 1:
            raise DataError("The training data holds no sample.")
        self.seed = seed
        self.count = count
        """Positions of a pass."""
        self._pass: tuple[int, Permutation | None] = (-1, None)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the sample of a slot follows from, beside the data, as strict JSON; equal for equal orders alone."""
        return {"kind": "permuted", "count": self.count, "seed": self.seed}

    def sample(self, epoch: int, position: int) -> int:
        """The sample at `position` of pass `epoch`; over all positions below `count`, every sample exactly once."""
        return self._permuted(epoch, position)

    def occasion(self, epoch: int, position: int) -> int:
        """What draws about a sample are keyed by, beside the seed and the sample: the pass, in which it comes once."""
        return epoch

    def substitute(self, epoch: int, position: int, attempt: int) -> int:
        """The sample that takes the place of a bad one at `position`, and of bad substitutes before `attempt`.

        Half a pass further on, so that a batch does not hold the same pair twice.
        """
        return self.sample(epoch, (position + self.count // 2 + attempt) % self.count)

    def _permuted(self, epoch: int, position: int) -> int:
        held, permutation = self._pass
        if permutation is None or held != epoch:
            permutation = Permutation(self.count, ORDER, self.seed, epoch)
            self._pass = (epoch, permutation)
        return permutation.at(position)

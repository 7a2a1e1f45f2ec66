"""Orders of data in parts of which some come more often than others: in exact numbers per pass, or drawn.

What this room leaves out: shards that have to be fetched (`windows`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

from clip_core.errors import ConfigError
from clip_train.data.order import Order, Permutation
from clip_train.keyed import PART, RESAMPLE, mix

__all__ = ["MixedOrder", "Part", "PartWeights", "ResampledOrder"]


@dataclass(frozen=True, slots=True)
class Part:
    """Samples that stand in a row, and how often they come."""

    first: int
    count: int
    factor: float = 1.0

    @property
    def quota(self) -> int:
        """How many of its samples a pass holds, repeated ones too."""
        # Of the number as it is written: 0.1 of 30 are 3.
        return round(Fraction(str(self.factor)) * self.count)


class MixedOrder(Order):
    """Passes in which each part comes exactly `factor` times its size.

    Of a part with the factor 2.5 every sample comes twice, and half of them, others in each pass, once more.
    """

    def __init__(self, seed: int, parts: Sequence[Part]) -> None:
        """Raises `ConfigError` where the factors leave no sample."""
        self._factors = [part.factor for part in parts]
        self._parts = [part for part in parts if part.quota]
        if not self._parts:
            raise ConfigError("--train-data-upsampling-factors leaves no sample of any part.")
        self._ends = list(accumulate(part.quota for part in self._parts))
        super().__init__(seed, self._ends[-1])
        self._rests: dict[int, tuple[int, Permutation]] = {}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """As of every order, with the factors of the parts."""
        return {**super().fingerprint, "factors": self._factors}

    def sample(self, epoch: int, position: int) -> int:
        """The sample at `position` of pass `epoch`."""
        place = self._permuted(epoch, position)
        number = bisect_right(self._ends, place)
        part = self._parts[number]
        place -= self._ends[number] - part.quota
        whole = part.quota // part.count * part.count
        if place < whole:
            return part.first + place % part.count
        held = self._rests.get(number)
        if held is None or held[0] != epoch:
            held = self._rests[number] = (epoch, Permutation(part.count, PART, self.seed, epoch, number))
        return part.first + held[1].at(place - whole)

    def occasion(self, epoch: int, position: int) -> int:
        """The slot: a sample that comes again in a pass is cropped in another way."""
        return mix(PART, epoch, position)


class PartWeights:
    """Draws a part with a chance of its factor times its size, in whole numbers: no rounding."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = [part for part in parts if part.count]
        weights = [Fraction(str(part.factor)) * part.count for part in self.parts]
        common = 1
        for weight in weights:
            common = common * weight.denominator // _divisor(common, weight.denominator)
        self._ends = list(accumulate(int(weight * common) for weight in weights))

    def draw(self, bits: int) -> Part:
        """The part that 64 keyed bits choose."""
        return self.parts[bisect_right(self._ends, bits * self._ends[-1] >> 64)]


class ResampledOrder(Order):
    """Samples drawn with replacement, each slot for itself: a pure function of the seed and the slot of the run."""

    def __init__(self, seed: int, parts: Sequence[Part]) -> None:
        super().__init__(seed, sum(part.count for part in parts))
        self._factors = [part.factor for part in parts]
        self._weights = PartWeights(parts)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """As of every order, with the factors of the parts."""
        return {**super().fingerprint, "kind": "drawn", "factors": self._factors}

    def sample(self, epoch: int, position: int) -> int:
        """The sample at `position` of pass `epoch`, where a pass is only a number of slots."""
        slot = epoch * self.count + position
        part = self._weights.draw(mix(RESAMPLE, self.seed, slot))
        return part.first + (mix(RESAMPLE, self.seed, slot, 1) * part.count >> 64)

    def occasion(self, epoch: int, position: int) -> int:
        """The slot: a sample that comes again in a pass is cropped in another way."""
        return mix(PART, epoch, position)


def _divisor(one: int, other: int) -> int:
    while other:
        one, other = other, one % other
    return one

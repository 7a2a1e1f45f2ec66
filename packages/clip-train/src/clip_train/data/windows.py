"""The order of shards that have to be fetched: several streams, each of which reads its shards one after the other.

The shards of a pass are permuted and laid in one line, which is cut into streams by samples, not by shards, so that no
stream is longer than its slots. Stream i has the i-th stretch of every batch. Within a stream, order is drawn inside of
windows of so many samples. A shard is thus needed by one stream (at a cut by two), for a while, once per pass.
Streams are of the run and not of its processes: which sample has which slot does not depend on who reads it.

What this room leaves out: fetching; `soon` is told which shards come next.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from clip_train.data.mixtures import Part, PartWeights
from clip_train.data.order import Order, Permutation
from clip_train.keyed import PART, RESAMPLE, WINDOW, mix

__all__ = ["ResampledWindowOrder", "Streams", "WindowOrder"]

_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Streams:
    """How a batch is divided among streams."""

    batch: int
    """Samples of a step, of all processes."""
    count: int
    window: int
    """Samples of a stream among which the order is drawn."""

    def of(self, slot: int) -> int:
        """The stream that fills a slot of the run."""
        return slot % self.batch * self.count // self.batch

    def before(self, stream: int, slot: int) -> int:
        """How many slots before `slot` a stream has filled."""
        first, end = self._first(stream), self._first(stream + 1)
        whole, rest = divmod(slot, self.batch)
        return whole * (end - first) + min(max(rest - first, 0), end - first)

    def _first(self, stream: int) -> int:
        return -(-stream * self.batch // self.count)


class _Line(NamedTuple):
    """What stands behind each other in one pass: units of samples in a row."""

    firsts: Sequence[int]
    """The first sample of each unit."""
    ends: Sequence[int]
    """Where each unit ends in the line."""
    streams: Sequence[int]
    """Where each stream begins in the line."""

    def sample(self, place: int) -> int:
        unit = bisect_right(self.ends, place)
        return self.firsts[unit] + place - (self.ends[unit - 1] if unit else 0)


class WindowOrder(Order):
    """Passes in which each part comes exactly `factor` times its size, shard after shard."""

    def __init__(
        self,
        seed: int,
        parts: Sequence[tuple[Part, Sequence[int]]],
        streams: Streams,
        soon: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        """`parts`: each with the sizes of its shards; `soon` is called with samples, one of each shard that is next."""
        super().__init__(seed, sum(part.quota for part, _ in parts))
        self._parts = [(part, [size for size in sizes if size]) for part, sizes in parts if part.quota]
        self._repeats = any(part.quota > part.count for part, _ in parts)
        self._streams = streams
        self._soon = soon
        self._lines: dict[int, _Line] = {}
        self._windows: dict[tuple[int, int, int], Permutation] = {}
        self._factors = [part.factor for part, _ in parts]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """As of every order, with the factors of the parts, the number of streams and the window."""
        streams = {"streams": self._streams.count, "window": self._streams.window}
        return {**super().fingerprint, "factors": self._factors, **streams}

    def sample(self, epoch: int, position: int) -> int:
        """The sample at `position` of pass `epoch`."""
        return self._shifted(epoch, position, 0)

    def occasion(self, epoch: int, position: int) -> int:
        """The pass; where samples come again in it, the slot."""
        return mix(PART, epoch, position) if self._repeats else epoch

    def substitute(self, epoch: int, position: int, attempt: int) -> int:
        """Another sample of the same window, so that no other shard is needed; beyond it, of the whole pass."""
        size = self._place(epoch, position)[3]
        if attempt < size:
            return self._shifted(epoch, position, size // 2 + attempt)
        return self.sample(epoch, (position + self.count // 2 + attempt) % self.count)

    def _place(self, epoch: int, position: int) -> tuple[int, int, int, int]:
        """Stream, number of the window in it, place in the window, and its size."""
        streams, begin = self._streams, epoch * self.count
        stream = streams.of(begin + position)
        before = streams.before(stream, begin)
        number = streams.before(stream, begin + position) - before
        length = streams.before(stream, begin + self.count) - before
        window = number // streams.window
        size = min(streams.window, length - window * streams.window)
        return stream, window, number - window * streams.window, size

    def _shifted(self, epoch: int, position: int, shift: int) -> int:
        stream, window, number, size = self._place(epoch, position)
        line = self._line(epoch)
        start = line.streams[stream] + window * self._streams.window
        permutation = self._windows.get((epoch, stream, window))
        if permutation is None:
            if len(self._windows) >= _KEPT:
                self._windows.clear()
            permutation = Permutation(size, WINDOW, self.seed, epoch, stream, window)
            self._windows[epoch, stream, window] = permutation
            self._tell(line, start, start + size + self._streams.window)
        return line.sample(start + permutation.at((number + shift) % size))

    def _tell(self, line: _Line, start: int, end: int) -> None:
        """Say which shards this window and the next one need."""
        if self._soon is None:
            return
        units = range(bisect_right(line.ends, start), bisect_right(line.ends, min(end, self.count) - 1) + 1)
        self._soon([line.firsts[unit] for unit in units])

    def _line(self, epoch: int) -> _Line:
        if epoch not in self._lines:
            # A batch may straddle two passes.
            self._lines = {held: line for held, line in self._lines.items() if held == epoch - 1}
            self._lines[epoch] = self._lay(epoch)
        return self._lines[epoch]

    def _lay(self, epoch: int) -> _Line:
        units = [
            unit for number, (part, sizes) in enumerate(self._parts) for unit in self._units(epoch, number, part, sizes)
        ]
        permutation = Permutation(len(units), PART, self.seed, epoch)
        permuted = [units[permutation.at(number)] for number in range(len(units))]
        begin = epoch * self.count
        lengths = [
            self._streams.before(stream, begin + self.count) - self._streams.before(stream, begin)
            for stream in range(self._streams.count)
        ]
        return _Line(
            array("q", (first for first, _ in permuted)),
            array("q", accumulate(size for _, size in permuted)),
            array("q", accumulate(lengths, initial=0)),
        )

    def _units(self, epoch: int, number: int, part: Part, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """All shards as often as the factor says in whole, and as many drawn ones as make up the rest."""
        shards = list(zip(accumulate(sizes, initial=part.first), sizes, strict=False))
        units = shards * (part.quota // part.count)
        left = part.quota % part.count
        drawn = Permutation(len(shards), PART, self.seed, epoch, number) if left else None
        for place in range(len(shards)):
            if not left or drawn is None:
                break
            first, size = shards[drawn.at(place)]
            if left >= size:
                units.append((first, size))
                left -= size
                continue
            # A stretch of the last one, from anywhere in it, around its end where need be.
            start = mix(PART, self.seed, epoch, number, 1) % size
            ahead = min(left, size - start)
            units.append((first + start, ahead))
            if left > ahead:
                units.append((first, left - ahead))
            left = 0
        return units


class ResampledWindowOrder(Order):
    """Stretches of a window's length drawn with replacement, for each stream: a pure function of seed and slot."""

    def __init__(
        self,
        seed: int,
        parts: Sequence[Part],
        streams: Streams,
        soon: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        super().__init__(seed, sum(part.count for part in parts))
        self._weights = PartWeights(parts)
        self._streams = streams
        self._soon = soon
        self._windows: dict[tuple[int, int], tuple[Part, int, Permutation]] = {}
        self._factors = [part.factor for part in parts]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """As of every order, with the factors of the parts, the number of streams and the window."""
        streams = {"streams": self._streams.count, "window": self._streams.window}
        return {**super().fingerprint, "kind": "drawn", "factors": self._factors, **streams}

    def sample(self, epoch: int, position: int) -> int:
        """The sample at `position` of pass `epoch`, where a pass is only a number of slots."""
        slot = epoch * self.count + position
        stream = self._streams.of(slot)
        window, number = divmod(self._streams.before(stream, slot), self._streams.window)
        held = self._windows.get((stream, window))
        if held is None:
            if len(self._windows) >= _KEPT:
                self._windows.clear()
            held = self._windows[stream, window] = self._draw(stream, window)
            if self._soon is not None:
                self._soon([self._at(*self._draw(stream, later), 0) for later in (window, window + 1)])
        return self._at(*held, number)

    def occasion(self, epoch: int, position: int) -> int:
        """The slot: a sample that comes again in a pass is cropped in another way."""
        return mix(PART, epoch, position)

    def _draw(self, stream: int, window: int) -> tuple[Part, int, Permutation]:
        part = self._weights.draw(mix(RESAMPLE, self.seed, stream, window, 2))
        start = mix(RESAMPLE, self.seed, stream, window, 3) * part.count >> 64
        return part, start, Permutation(self._streams.window, WINDOW, self.seed, stream, window)

    @staticmethod
    def _at(part: Part, start: int, permutation: Permutation, number: int) -> int:
        return part.first + (start + permutation.at(number)) % part.count

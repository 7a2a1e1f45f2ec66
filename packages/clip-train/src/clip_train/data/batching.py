"""Which slots of the run's one line belong to which step, and how many: the only place that decides it.

Micro-batches are numbered from 0 over the whole run, `accumulated` of them to a step, and a step has a row of slots.
Its size is one number (`EvenBatching`), or is drawn for each step together with how the images are cut into patches
(`DrawnBatching`, NaFlex). Both are pure functions of the number, the same for every process; how a micro-batch is
shared among processes is the loader's affair (`loader.Share`).

Words: the length of an image is the number of places for its patches. What this room leaves out: which sample a slot
has (`order`).
"""

from __future__ import annotations

import dataclasses
import functools
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

from clip_train.keyed import SHAPE, mix

__all__ = ["Batching", "Choice", "DrawnBatching", "EvenBatching", "Form", "Piece"]


class Form(NamedTuple):
    """How the images of a micro-batch are cut."""

    patch_size: int
    """Pixels of a patch's side."""
    length: int
    """Places for the patches of an image."""


class Piece(NamedTuple):
    """A micro-batch of all processes."""

    first: int
    """The first of its slots."""
    size: int
    """How many they are."""
    form: Form | None = None
    """None where all images of the run have one size."""


class Batching(Protocol):
    """Numbers of micro-batches and steps -> slots. What counts as an epoch is measured by `passed`."""

    @property
    def accumulated(self) -> int:
        """Micro-batches of a step."""
        ...

    @property
    def most(self) -> int:
        """Samples of a step at most, of all processes."""
        ...

    @property
    def fullest(self) -> int:
        """As `most`, for what the largest images of a step take: so many images of the largest form take as much."""
        ...

    @property
    def fingerprint(self) -> dict[str, Any] | None:
        """What the batches follow from, beside the seed, as strict JSON; None where they are all of one size."""
        ...

    def piece(self, number: int) -> Piece:
        """Micro-batch `number`."""
        ...

    def samples(self, steps: int) -> int:
        """Samples of the first `steps` steps together."""
        ...

    def passed(self, steps: int) -> int:
        """What the first `steps` steps have of that in which epochs are counted: samples, or tokens of images."""
        ...

    def steps(self, amount: int) -> int:
        """How many steps it takes until `passed` is `amount` or more."""
        ...


class EvenBatching:
    """Micro-batches of one size."""

    fingerprint = None

    def __init__(self, size: int, accumulated: int = 1) -> None:
        """`size`: samples of all processes in one micro-batch."""
        self.size = size
        self.accumulated = accumulated

    @property
    def most(self) -> int:
        """Samples of a step."""
        return self.size * self.accumulated

    @property
    def fullest(self) -> int:
        """The same."""
        return self.most

    def piece(self, number: int) -> Piece:
        """See `Batching.piece`."""
        return Piece(number * self.size, self.size)

    def samples(self, steps: int) -> int:
        """See `Batching.samples`."""
        return steps * self.most

    def passed(self, steps: int) -> int:
        """Samples."""
        return self.samples(steps)

    def steps(self, amount: int) -> int:
        """See `Batching.steps`."""
        return -(-amount // self.most)


@dataclasses.dataclass(frozen=True)
class Choice:
    """Something that is drawn for a step: values of equal number and weights."""

    values: tuple[int, ...]
    weights: tuple[float, ...]

    def drawn(self, *key: int) -> int:
        """The place of the value that `key` draws."""
        bounds, last = self._bounds
        # Rounding may reach the upper end; what has no weight is never drawn.
        return min(bisect_right(bounds, mix(*key) / 2**64 * bounds[-1]), last)

    @functools.cached_property
    def _bounds(self) -> tuple[list[float], int]:
        """Where each value ends, of the sum of the weights, and the last place that has a weight."""
        return list(accumulate(self.weights)), max(n for n, weight in enumerate(self.weights) if weight > 0)


class DrawnBatching:
    """Steps whose images have a length and a patch size that are drawn under the key (seed, step).

    A table holds where each step begins; it grows as it is asked, a few bytes a step.
    """

    def __init__(
        self,
        seed: int,
        lengths: Choice,
        sizes: Sequence[int],
        patch_sizes: Choice,
        *,
        accumulated: int = 1,
        in_tokens: bool = False,
    ) -> None:
        """
        Args:
            seed: the run's.
            lengths: of images.
            sizes: for each length, samples of a step of all processes; `accumulated` divides them.
            patch_sizes: pixels of the side.
            accumulated: micro-batches of a step; all of them have its length and its patch size.
            in_tokens: whether epochs are counted in tokens of images, which are places for patches.
        """
        self.lengths = lengths
        self.sizes = tuple(sizes)
        self.patch_sizes = patch_sizes
        self.accumulated = accumulated
        self._seed = seed
        self._in_tokens = in_tokens
        self._drawn = array("H")
        self._samples = array("q", [0])
        self._passed = array("q", [0])

    @property
    def most(self) -> int:
        """Samples of the largest step."""
        return max(self.sizes)

    @property
    def fullest(self) -> int:
        """See `Batching.fullest`."""
        longest = max(self.lengths.values)
        return max(-(-size * length // longest) for size, length in zip(self.sizes, self.lengths.values, strict=True))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """See `Batching.fingerprint`."""
        return {
            "seq_lens": list(self.lengths.values),
            "seq_len_probs": list(self.lengths.weights),
            "sizes": list(self.sizes),
            "patch_sizes": list(self.patch_sizes.values),
            "patch_size_probs": list(self.patch_sizes.weights),
        }

    def piece(self, number: int) -> Piece:
        """See `Batching.piece`."""
        step, part = divmod(number, self.accumulated)
        self._reach(step + 1)
        place = self._drawn[step]
        size = self.sizes[place] // self.accumulated
        patch_size = self.patch_sizes.values[self.patch_sizes.drawn(SHAPE, self._seed, step, 1)]
        return Piece(self._samples[step] + part * size, size, Form(patch_size, self.lengths.values[place]))

    def samples(self, steps: int) -> int:
        """See `Batching.samples`."""
        self._reach(steps)
        return self._samples[steps]

    def passed(self, steps: int) -> int:
        """Samples, or tokens of images."""
        self._reach(steps)
        return self._passed[steps]

    def steps(self, amount: int) -> int:
        """See `Batching.steps`."""
        while self._passed[-1] < amount:
            # By the hundred, of which the last may be more than is asked for: runs have millions of steps.
            self._reach(len(self._drawn) + 100)
        return bisect_left(self._passed, amount)

    def _reach(self, steps: int) -> None:
        """Lengthen the table to `steps` steps."""
        samples, passed = self._samples[-1], self._passed[-1]
        for step in range(len(self._drawn), steps):
            place = self.lengths.drawn(SHAPE, self._seed, step, 0)
            size = self.sizes[place]
            samples += size
            passed += size * self.lengths.values[place] if self._in_tokens else size
            self._drawn.append(place)
            self._samples.append(samples)
            self._passed.append(passed)

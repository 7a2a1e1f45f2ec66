"""Where the seconds of making a batch go: reading, decoding, augmenting, tokenising.

They are measured where a batch is made and travel in it, so the loop knows them whichever process that was.
"""

from __future__ import annotations

import time
from typing import NamedTuple

__all__ = ["Spent", "Watch"]


class Spent(NamedTuple):
    """Seconds of one worker; stages of several batches add up."""

    read: float = 0.0
    """Storage: the bytes of images and captions."""
    decode: float = 0.0
    """Bytes to pixels."""
    augment: float = 0.0
    """Crop, resize, and whatever else is drawn, and the batch put together."""
    tokenise: float = 0.0

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(*(one + more for one, more in zip(self, other, strict=True)))


class Watch:
    """Adds up stages: everything since the last `mark`, or since it was made, belongs to the stage that is named."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(Spent._fields, 0.0)
        self._last = time.perf_counter()

    def mark(self, stage: str) -> None:
        """`stage`, a field of `Spent`, ends here."""
        now = time.perf_counter()
        self._seconds[stage] += now - self._last
        self._last = now

    def spent(self) -> Spent:
        """All of it so far."""
        return Spent(**self._seconds)

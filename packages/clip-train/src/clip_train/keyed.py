"""Randomness without state: 64 bits that are a pure function of whole numbers such as (seed, epoch, sample).

What is keyed need not be saved, carried from worker to worker, or drawn in any order, so a run repeats itself to the
bit however many workers read its data. The mixing is splitmix64's (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

__all__ = ["AUGMENT", "CAPTION", "MODEL", "ORDER", "PART", "RESAMPLE", "SAMPLE", "SHAPE", "WINDOW", "mix"]

# The first word of a key says what it is for, so that no two uses ever share their numbers.
ORDER, AUGMENT, MODEL, SAMPLE, CAPTION, PART, RESAMPLE, WINDOW, SHAPE = 1, 2, 3, 4, 5, 6, 7, 8, 9

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def mix(*words: int) -> int:
    """A number in [0, 2**64) that depends on every one of `words` and on their order."""
    state = 0
    for word in words:
        state = (state ^ word) + _GOLDEN & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state

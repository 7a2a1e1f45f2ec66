"""Plans of the pictures in the `quick` sets: what each one shows, and what is asked about it.

As in `digit_drawings`, the plan comes first and the pixels from the plan alone, so what a set shows can be checked
without looking at it. Every picture shows held-out scans only. What is not here: the scans, files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from clip_eval.datasets.digit_drawings import (
    CANVAS,
    CLASSNAMES,
    RELATIONS,
    Drawing,
    Placed,
    held_out_scenes,
    with_article,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PAPERS", "SIZES", "Page", "Paper", "Riddle", "pages", "papers", "riddles", "scene_captions", "swaps"]

PAPERS = ("dark", "grey", "bright")
SIZES = ("small", "large")
# Brightness of stroke and paper; on bright paper the ink is dark.
_INK = ((1.0, 0.0), (1.0, 0.35), (0.0, 1.0))
_EDGES = (16.0, 24.0)
_PAGES = 200
_PER_SIZE = 30
_SEED = 1997


@dataclass(frozen=True, slots=True)
class Page:
    """Up to four different digits in the four quarters of a picture."""

    drawing: Drawing
    present: tuple[int, ...]
    """Ascending; empty for an empty page."""


@dataclass(frozen=True, slots=True)
class Paper:
    """One digit on one of three papers, in one of two sizes."""

    drawing: Drawing
    label: int
    paper: int
    size: int


@dataclass(frozen=True, slots=True)
class Riddle:
    """A digit's name and pictures of digits, of which several show it."""

    cue: str
    candidates: tuple[int, ...]
    """Places in the list of pictures."""
    right: tuple[int, ...]


def pages(labels: NDArray[np.int64], test: NDArray[np.int64]) -> list[Page]:
    """200 pages, 40 each with none to four digits; no digit stands on a page twice."""
    random = np.random.RandomState(_SEED)
    found = []
    for number in range(_PAGES):
        present = sorted(int(digit) for digit in random.permutation(10)[: number % 5])
        quarters = random.permutation(4)
        placed = []
        for digit, quarter in zip(present, quarters, strict=False):
            scan = int(random.choice(test[labels[test] == digit]))
            x, y = CANVAS * (1 + 2 * (quarter % 2)) / 4, CANVAS * (1 + 2 * (quarter // 2)) / 4
            placed.append(Placed(scan, float(x), float(y), 13.0))
        found.append(Page(Drawing("", tuple(placed)), tuple(present)))
    return found


def papers(labels: NDArray[np.int64], test: NDArray[np.int64]) -> list[Paper]:
    """Each of the 360 held-out scans once; paper and size take turns within each digit, so that every group has all."""
    found = []
    seen = [0] * 10
    for scan in test.tolist():
        digit = int(labels[scan])
        turn = seen[digit]
        seen[digit] += 1
        paper, size = turn % len(PAPERS), turn // len(PAPERS) % len(SIZES)
        ink, brightness = _INK[paper]
        placed = Placed(scan, CANVAS / 2, CANVAS / 2, _EDGES[size])
        found.append(Paper(Drawing("", (placed,), ink, brightness), digit, paper, size))
    return found


def swaps(labels: NDArray[np.int64], test: NDArray[np.int64]) -> list[tuple[Drawing, Drawing]]:
    """90 pairs of scenes: in the second the same two scans have changed places. The captions say which is which."""
    scenes = {scene.caption: scene for scene in held_out_scenes(labels, test)}
    found = []
    for relation in RELATIONS:
        for first in range(10):
            for second in range(first + 1, 10):
                one, other = (
                    f"{with_article(a)} {relation} {with_article(b)}" for a, b in ((first, second), (second, first))
                )
                scene = scenes[one]
                a, b = scene.digits
                moved = (replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y))
                found.append((scene, replace(scene, caption=other, digits=moved)))
    return found


def riddles(shown: list[int]) -> list[Riddle]:
    """120 riddles about pictures of the digits `shown`: 30 each with 5, 6, 10 and 12 candidates, 2 to 4 right."""
    random = np.random.RandomState(_SEED)
    digits = np.array(shown)
    found = []
    for size in (5, 6, 10, 12):
        for number in range(_PER_SIZE):
            digit = number % 10
            count = 2 + int(random.randint(3 if size > 6 else 2))
            right = random.permutation(np.flatnonzero(digits == digit))[:count]
            wrong = random.permutation(np.flatnonzero(digits != digit))[: size - count]
            candidates = random.permutation(np.concatenate([right, wrong]))
            found.append(Riddle(CLASSNAMES[digit], tuple(candidates.tolist()), tuple(sorted(right.tolist()))))
    return found


def scene_captions(first: int, second: int, relation: str) -> tuple[str, ...]:
    """Five ways to tell one scene; no other scene of the set can be told in these words."""
    one, other = with_article(first), with_article(second)
    if relation == RELATIONS[0]:
        return (
            f"{one} to the left of {other}",
            f"{other} to the right of {one}",
            f"{one} and to its right {other}",
            f"on the left {one}, on the right {other}",
            f"a scan of {one} with {other} on its right side",
        )
    return (
        f"{one} above {other}",
        f"{other} below {one}",
        f"{one} and under it {other}",
        f"at the top {one}, at the bottom {other}",
        f"a scan of {one} with {other} beneath it",
    )

"""What a digit picture is made of, and how it is drawn: the plan of a picture first, its pixels from the plan alone.

Because every pixel comes through a `Drawing`, which scans a data set shows can be checked without looking at it.
What is not here: the scans, the split, files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CANVAS",
    "CLASSNAMES",
    "RELATIONS",
    "RIM",
    "TEMPLATES",
    "Drawing",
    "Placed",
    "Style",
    "render",
    "held_out_scenes",
    "training_drawings",
    "with_article",
]

CANVAS = 32
"""Width and height of every picture in pixels."""
CLASSNAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a photo of the digit {c}",
    "a handwritten {c}",
    "the number {c} written by hand",
    "a scan of the digit {c}",
    "a picture of a single {c}",
    "a bright {c} on a dark background",
)
RELATIONS = ("to the left of", "above")
_CONVERSE = {"to the left of": "to the right of", "above": "below"}
RIM = 2
"""Pixels of background around each scan, so that a stroke at its edge fades out instead of ending in a hard line."""
_TEST_SEED = 360


@dataclass(frozen=True, slots=True)
class Placed:
    """One scan on the canvas: its row in scikit-learn's set, its centre and edge in pixels, its turn in degrees."""

    scan: int
    x: float
    y: float
    size: float
    angle: float = 0.0


@dataclass(frozen=True, slots=True)
class Drawing:
    """Everything that one picture is made of, so that what a data set shows can be checked without its pixels."""

    caption: str
    digits: tuple[Placed, ...]
    ink: float = 1.0
    """Brightness of the brightest stroke, 0 to 1."""
    paper: float = 0.0
    """Brightness of the background, 0 to 1."""


def render(scans: NDArray[np.uint8], drawing: Drawing) -> Image.Image:
    """Draws a picture, RGB, 32 x 32: each scan enlarged bicubically, the brighter one showing where two overlap."""
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    middle = scans.shape[1] / 2
    for placed in drawing.digits:
        source = Image.fromarray(scans[placed.scan])
        step = (scans.shape[1] - 2 * RIM) / placed.size
        turn = np.deg2rad(placed.angle)
        a, b = step * np.cos(turn), step * np.sin(turn)
        matrix = (a, b, middle - a * placed.x - b * placed.y, -b, a, middle + b * placed.x - a * placed.y)
        layer = source.transform(
            (CANVAS, CANVAS), Image.Transform.AFFINE, tuple(map(float, matrix)), Image.Resampling.BICUBIC
        )
        np.maximum(canvas, np.asarray(layer), out=canvas)
    shade = drawing.paper + (drawing.ink - drawing.paper) * (canvas / 255)
    return Image.fromarray(np.rint(shade * 255).astype(np.uint8)).convert("RGB")


@dataclass(frozen=True, slots=True)
class Style:
    """Ranges from which a picture is drawn, each (smallest, largest); see `build_digits`."""

    single_size: tuple[float, float]
    scene_size: tuple[float, float]
    scene_jitter: tuple[float, float]
    max_angle: float
    ink: tuple[float, float]
    paper: tuple[float, float]


def training_drawings(
    random: np.random.RandomState,
    by_digit: list[NDArray[np.int64]],
    style: Style,
    count: int,
    scene_share: float,
    converse_share: float,
) -> list[Drawing]:
    """Plans `count` training pictures from the scans (rows) of each digit; the arguments are `build_digits`'."""
    drawings = []
    for _ in range(count):
        first, second = (int(digit) for digit in random.randint(10, size=2))
        if random.random_sample() < scene_share:
            relation = RELATIONS[random.randint(2)]
            scans = [int(by_digit[digit][random.randint(len(by_digit[digit]))]) for digit in (first, second)]
            caption = _scene_caption(first, second, relation, random.random_sample() < converse_share)
            drawings.append(_scene(random, style, caption, scans[0], scans[1], relation))
        else:
            scan = int(by_digit[first][random.randint(len(by_digit[first]))])
            caption = TEMPLATES[random.randint(len(TEMPLATES))].format(c=CLASSNAMES[first])
            drawings.append(_single(random, style, caption, scan))
    return drawings


def _single(random: np.random.RandomState, style: Style, caption: str, scan: int) -> Drawing:
    size = random.uniform(*style.single_size)
    room = max(0.0, (CANVAS - size) / 2) * 0.6 + 1
    x, y = CANVAS / 2 + random.uniform(-room, room, size=2)
    angle = random.uniform(-style.max_angle, style.max_angle)
    return Drawing(
        caption, (Placed(scan, x, y, size, angle),), random.uniform(*style.ink), random.uniform(*style.paper)
    )


def _scene(
    random: np.random.RandomState, style: Style, caption: str, first: int, second: int, relation: str
) -> Drawing:
    placed = []
    for scan, along in ((first, CANVAS / 4), (second, 3 * CANVAS / 4)):
        along += random.uniform(-1, 1) * style.scene_jitter[0]
        across = CANVAS / 2 + random.uniform(-1, 1) * style.scene_jitter[1]
        x, y = (along, across) if relation == "to the left of" else (across, along)
        size = random.uniform(*style.scene_size)
        placed.append(Placed(scan, x, y, size, random.uniform(-style.max_angle, style.max_angle)))
    return Drawing(caption, tuple(placed), random.uniform(*style.ink), random.uniform(*style.paper))


def _scene_caption(first: int, second: int, relation: str, converse: bool = False) -> str:
    if converse:
        first, second, relation = second, first, _CONVERSE[relation]
    return f"{with_article(first)} {relation} {with_article(second)}"


def with_article(digit: int) -> str:
    """The digit's name as captions have it, `a three`, `an eight`."""
    name = CLASSNAMES[digit]
    return f"an {name}" if name == "eight" else f"a {name}"


def held_out_scenes(labels: NDArray[np.int64], test: NDArray[np.int64]) -> list[Drawing]:
    """The 200 held-out scenes, in the middle of the training style; each scan appears once or twice."""
    random = np.random.RandomState(_TEST_SEED)
    style = Style((24, 24), (15, 15), (0.5, 2.0), 5.0, (0.85, 1.0), (0.0, 0.1))
    pools = [random.permutation(test[labels[test] == digit]) for digit in range(10)]
    used = [0] * 10

    def take(digit: int) -> int:
        used[digit] += 1
        return int(pools[digit][(used[digit] - 1) % len(pools[digit])])

    return [
        _scene(random, style, _scene_caption(first, second, relation), take(first), take(second), relation)
        for relation in RELATIONS
        for first in range(10)
        for second in range(10)
    ]

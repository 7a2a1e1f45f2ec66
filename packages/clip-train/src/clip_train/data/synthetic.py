"""Made-up pictures with captions that describe them, each a pure function of its number: to try a command or measure.

What this room leaves out: reading anything.
"""

from __future__ import annotations

import hashlib
import io
import random
from typing import Any

from clip_train.keyed import mix

__all__ = ["SyntheticSource"]

_COLOURS = {
    "red": (214, 40, 40),
    "green": (42, 157, 60),
    "blue": (38, 70, 203),
    "yellow": (250, 210, 40),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
    "purple": (130, 50, 170),
    "orange": (245, 130, 30),
}
_SHAPES = ("circle", "square", "triangle", "cross")
_SIDE = 256
_SYNTHETIC = 0x5E


class SyntheticSource:
    """So many coloured shapes on noise; see `source.Source`."""

    def __init__(self, count: int) -> None:
        self.groups: tuple[str, ...] = ("synthetic",)
        self.left_out: dict[str, int] = {}
        self._count = count

    @property
    def fingerprint(self) -> str:
        """Of the number of samples; nothing else decides what they are."""
        return hashlib.sha256(f"synthetic 1 {self._count}".encode()).hexdigest()

    def __len__(self) -> int:
        return self._count

    def read(self, index: int, draw: int = 0) -> tuple[bytes, bytes]:
        """A JPEG of 256 x 256 and its caption, "a small red circle on blue, number 17"."""
        import PIL.Image
        import PIL.ImageDraw

        pick = random.Random(mix(_SYNTHETIC, index))
        (name, colour), (ground, shade) = pick.sample(sorted(_COLOURS.items()), 2)
        shape, large = pick.choice(_SHAPES), pick.random() < 0.5
        image = PIL.Image.frombytes("RGB", (32, 32), pick.randbytes(32 * 32 * 3)).resize((_SIDE, _SIDE))
        image = PIL.Image.blend(image, PIL.Image.new("RGB", image.size, shade), 0.7)
        _draw(PIL.ImageDraw.Draw(image), shape, colour, 100 if large else 50, pick)
        data = io.BytesIO()
        image.save(data, format="JPEG", quality=90)
        size = "large" if large else "small"
        return data.getvalue(), f"a {size} {name} {shape} on {ground}, number {index}".encode()

    def label(self, index: int) -> str:
        """The number, as in "synthetic:17"."""
        return f"synthetic:{index}"

    def group(self, index: int) -> int:
        """Always 0."""
        return 0

    def facts(self) -> dict[str, Any]:
        """For the summary of a run."""
        return {"data_fingerprint": self.fingerprint, "left_out_by_shard": {}}


def _draw(canvas: Any, shape: str, colour: tuple[int, int, int], size: int, pick: random.Random) -> None:
    x, y = (pick.randint(size, _SIDE - size) for _ in range(2))
    box = (x - size, y - size, x + size, y + size)
    if shape == "circle":
        canvas.ellipse(box, fill=colour)
    elif shape == "square":
        canvas.rectangle(box, fill=colour)
    elif shape == "triangle":
        canvas.polygon([(x, y - size), (x - size, y + size), (x + size, y + size)], fill=colour)
    else:
        canvas.rectangle((x - size, y - size // 3, x + size, y + size // 3), fill=colour)
        canvas.rectangle((x - size // 3, y - size, x + size // 3, y + size), fill=colour)

"""What one picture draws, from generators of its own: the numbers that torchvision draws from the global ones.

So several threads can draw at once, and none disturbs what a model draws. What this room leaves out: what is done with
the numbers (`train_pixels`), and timm's steps, which draw from the global generators themselves.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import torch

__all__ = ["Box", "Draws"]

# torchvision gives up after so many crops that do not fit into the picture.
_ATTEMPTS = 10


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Draws:
    """Numbers that `seed` (0 to 2**64 - 1) decides; those that the global generators give after `seed_augmentation`."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._torch = torch.Generator().manual_seed(seed)
        self._python: random.Random | None = None

    def uniform(self, low: float, high: float) -> float:
        """A float32 in [low, high)."""
        return torch.empty(1).uniform_(low, high, generator=self._torch).item()

    def below(self, end: int) -> int:
        """A whole number from 0 to `end` - 1."""
        return int(torch.randint(0, end, size=(1,), generator=self._torch).item())

    def happens(self, probability: float) -> bool:
        """Whether it does, by torch's generator, as in torchvision's own steps."""
        return torch.rand(1, generator=self._torch).item() < probability

    def happens_in_python(self, probability: float) -> bool:
        """Whether it does, by Python's generator, as in the steps that open_clip adds."""
        if self._python is None:
            self._python = random.Random(self._seed)
        return self._python.random() < probability

    def order(self, count: int) -> list[int]:
        """The numbers below `count` in any order."""
        found: list[int] = torch.randperm(count, generator=self._torch).tolist()
        return found

    def crop(self, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]) -> Box:
        """The part of a picture that torchvision's RandomResizedCrop cuts out: a share of its area, and a shape.

        The middle, where ten parts that were drawn are higher or wider than the picture.
        """
        area = height * width
        low, high = torch.tensor(ratio).log().tolist()
        for _ in range(_ATTEMPTS):
            share = area * self.uniform(*scale)
            shape = torch.empty(1).uniform_(low, high, generator=self._torch).exp().item()
            wide, tall = round(math.sqrt(share * shape)), round(math.sqrt(share / shape))
            if 0 < wide <= width and 0 < tall <= height:
                top = self.below(height - tall + 1)
                return Box(top, self.below(width - wide + 1), tall, wide)
        wide, tall = width, height
        if width / height < min(ratio):
            tall = round(width / min(ratio))
        elif width / height > max(ratio):
            wide = round(height * max(ratio))
        return Box((height - tall) // 2, (width - wide) // 2, tall, wide)

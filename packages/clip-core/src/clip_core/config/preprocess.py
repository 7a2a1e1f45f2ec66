"""How an image becomes the tensor that a tower was trained on."""

from __future__ import annotations

import dataclasses
from typing import Literal

from clip_core.config.values import Size, positive
from clip_core.schema import Schema

__all__ = ["PreprocessConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessConfig(Schema):
    """How an image becomes the (3, height, width) tensor that the image tower was trained on.

    `mean` and `std` are per RGB channel on a 0 to 1 scale. `resize_mode` "shortest" scales the shorter side to
    `size` and cuts the centre; "squash" scales both sides to `size` without keeping the aspect ratio; "longest"
    scales the longer side and fills the rest with `fill_color` (0 to 255, in all channels).
    """

    size: Size
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"]
    resize_mode: Literal["shortest", "longest", "squash"]
    fill_color: int = 0

    def check(self) -> None:
        positive(self, "size")
        self.require(all(value > 0 for value in self.std), "std", "three numbers above 0")
        self.require(0 <= self.fill_color <= 255, "fill_color", "0 to 255")

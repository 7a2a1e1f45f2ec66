"""What is trained: `ModelConfig`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from clip_core.schema import Schema
from clip_train.config.flag import flag

__all__ = ["Channels", "ModelConfig"]


Channels = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(Schema):
    """What is trained, and from which weights."""

    model: str = flag(help="architecture name, for example ViT-B-32 or tiny")
    pretrained: str = flag("", help="initial weights: a tag, a bundle folder or a weight file; empty: random")
    image_mean: Channels | None = flag(None, help="mean per RGB channel on a 0 to 1 scale; not given: the model's own")
    image_std: Channels | None = flag(None, help="standard deviation per channel; not given: the model's own")
    image_interpolation: Literal["bicubic", "bilinear"] | None = flag(
        None, help="resize filter; not given: the model's own"
    )

    def check(self) -> None:
        self.require(bool(self.model.strip()), "model", "an architecture name; clip_core.list_models() lists them")
        self.require(self.image_std is None or min(self.image_std) > 0, "image_std", "three numbers above 0")

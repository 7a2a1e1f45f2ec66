"""The random part of training: from a decoded image to the normalised tensor, drawn anew at every call.

Without `use_timm` the steps are torchvision's in open_clip's order; with it they are timm's. Draws come from the
global generators of torch, of `random` and, in timm's automatic policies, of NumPy: seed the three and the pixels are
those of the peer. What this room leaves out: evaluation, and making other images RGB (`preprocess`).
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from clip_core.config import PreprocessConfig, size_pair
from clip_core.errors import ConfigError
from clip_core.schema import Schema

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["AugmentConfig", "plain_steps", "seed_augmentation", "timm_steps"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig(Schema):
    """The random part of the training transform, under the names of open_clip's `--aug-cfg`.

    A crop of a share of the area drawn from `scale` and an aspect ratio drawn from `ratio` is resized to the model's
    size and mirrored with probability `hflip`. The defaults are OpenCLIP's: a light crop, nothing else.

    `color_jitter` is the strength of changes in brightness, contrast, saturation and hue; 0 is none. Without
    `use_timm` it takes all four and happens with probability `color_jitter_prob`; pictures lose their colour with
    probability `gray_scale_prob` (Chen et al. 2020). With `use_timm` it takes one number (no hue), three or four and
    always happens; `re_prob` is the probability of erasing `re_count` rectangles with noise (Zhong et al. 2020) and
    `auto_augment` one of timm's policies, say "rand-m9-mstd0.5-inc1", "augmix-m3-w3" or "original".

    `interpolation` "model" is that of evaluation; "random" draws bilinear or bicubic for each picture (timm only).
    open_clip without timm always takes "bicubic". What a path does not have is refused: open_clip leaves it out.
    """

    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.0
    interpolation: Literal["model", "bicubic", "bilinear", "random"] = "model"
    color_jitter: float | tuple[float, float, float] | tuple[float, float, float, float] = 0.0
    color_jitter_prob: float = 0.0
    gray_scale_prob: float = 0.0
    use_timm: bool = False
    re_prob: float = 0.0
    re_count: int = 1
    auto_augment: str = ""

    def check(self) -> None:
        self.require(0 < self.scale[0] <= self.scale[1] <= 1, "scale", "two rising numbers in (0, 1]")
        self.require(0 < self.ratio[0] <= self.ratio[1], "ratio", "two rising numbers above 0")
        for field in ("hflip", "color_jitter_prob", "gray_scale_prob", "re_prob"):
            self.require(0 <= getattr(self, field) <= 1, field, "a probability, 0 to 1")
        jitter = self.color_jitter if isinstance(self.color_jitter, tuple) else (self.color_jitter,)
        self.require(min(jitter) >= 0, "color_jitter", "numbers from 0 on")
        self.require(len(jitter) < 4 or jitter[3] <= 0.5, "color_jitter", "0 to 0.5 for the hue, its fourth number")
        self.require(self.re_count >= 1, "re_count", "1 or more")
        if self.use_timm:
            for field in ("color_jitter_prob", "gray_scale_prob"):
                self.require(not getattr(self, field), field, "0 with use_timm=True, where open_clip ignores it")
            clash = self.auto_augment and self.color_jitter and "3a" not in self.auto_augment
            self.require(not clash, "color_jitter", "0 with auto_augment, with which timm leaves it out")
            return
        for field, off in (("re_prob", 0), ("re_count", 1), ("auto_augment", "")):
            self.require(getattr(self, field) == off, field, f"{off!r}, or anything with use_timm=True")
        self.require(self.interpolation != "random", "interpolation", "'random' only with use_timm=True")
        both = len(jitter) == 4 and self.color_jitter_prob > 0
        neither = self.color_jitter == 0 and self.color_jitter_prob == 0
        self.require(
            both or neither, "color_jitter", "four numbers together with color_jitter_prob above 0, or use_timm=True"
        )


def plain_steps(config: PreprocessConfig, augment: AugmentConfig) -> tuple[Any, list[Callable[[Image], Image]]]:
    """(the crop of an image in any mode, the changes to it as RGB), to be followed by scaling and normalising."""
    from torchvision import transforms

    interpolation = config.interpolation if augment.interpolation == "model" else augment.interpolation
    crop = transforms.RandomResizedCrop(
        config.size,
        scale=augment.scale,
        ratio=augment.ratio,
        interpolation=transforms.InterpolationMode(interpolation),
    )
    changes: list[Any] = []
    if augment.hflip:
        changes.append(transforms.RandomHorizontalFlip(augment.hflip))
    if isinstance(augment.color_jitter, tuple):
        jitter = transforms.ColorJitter(*augment.color_jitter)
        changes.append(functools.partial(_sometimes, augment.color_jitter_prob, jitter))
    if augment.gray_scale_prob:
        changes.append(functools.partial(_sometimes, augment.gray_scale_prob, transforms.Grayscale(3)))
    return crop, changes


def timm_steps(config: PreprocessConfig, augment: AugmentConfig, **patches: Any) -> tuple[list[Any], list[Any]]:
    """The steps of timm from an RGB image to one of the configured size, and from that to the normalised tensor.

    The second are scaling to [0, 1], normalising, and where `re_prob` is not 0 erasing with noise. `patches` are timm's
    arguments for NaFlex, whose images have no size but a number of patches.

    Raises `ConfigError` for an `auto_augment` that timm does not know.
    """
    from timm.data.transforms_factory import create_transform

    # An amount of 0 still draws from torch's generator in torchvision; open_clip asks for no jitter at all.
    jitter: Any = augment.color_jitter or None
    try:
        first, second, third = create_transform(
            separate=True,
            **patches,
            input_size=(3, *size_pair(config.size)),
            is_training=True,
            scale=augment.scale,
            ratio=augment.ratio,
            hflip=augment.hflip,
            color_jitter=jitter,
            auto_augment=augment.auto_augment or None,
            interpolation=config.interpolation if augment.interpolation == "model" else augment.interpolation,
            mean=config.mean,
            std=config.std,
            re_prob=augment.re_prob,
            re_mode="pixel",
            re_count=augment.re_count,
        )
        return [*first.transforms, *second.transforms], list(third.transforms)
    except (AssertionError, KeyError, ValueError) as error:
        # Everything else was checked before; timm asserts on the words of a policy.
        raise ConfigError(
            f"AugmentConfig.auto_augment is {augment.auto_augment!r}, which timm does not read ({error!r}); examples "
            "are 'rand-m9-mstd0.5-inc1', 'augmix-m3-w3' and 'original'."
        ) from error


def seed_augmentation(seed: int) -> None:
    """Seed the three global generators from which augmentation draws with `seed` (0 to 2**64 - 1)."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002  (timm draws from the global one)


def _sometimes(probability: float, change: Callable[[Image], Image], image: Image) -> Image:
    # Python's generator, as in open_clip, so that the same seeds give the same pictures.
    return change(image) if random.random() < probability else image

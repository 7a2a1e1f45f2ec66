"""From a PIL image to the normalised (3, size, size) float32 tensor that a tower takes, for evaluation and training.

Made of torchvision's own transforms, so that evaluation equals them bit for bit; torchvision is imported when a
transform is built, not with the package.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from clip_core.config import PreprocessConfig, size_pair
from clip_core.errors import ConfigError, ImageError
from clip_core.schema import Schema

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

__all__ = ["AugmentConfig", "Transform", "build_transform"]

# Of an image after resizing and before cropping; Pillow's own limit for decoding is of this order.
_MOST_PIXELS = 100_000_000

Transform = Callable[["Image"], "Tensor"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig(Schema):
    """The random part of the training transform.

    A crop of a share of the area drawn from `scale` and an aspect ratio drawn from `ratio` is resized to the model's
    size. The defaults are OpenCLIP's: a light crop, nothing else.
    """

    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def check(self) -> None:
        self.require(0 < self.scale[0] <= self.scale[1] <= 1, "scale", "two rising numbers in (0, 1]")
        self.require(0 < self.ratio[0] <= self.ratio[1], "ratio", "two rising numbers above 0")


def build_transform(
    config: PreprocessConfig, *, train: bool = False, augment: AugmentConfig | None = None
) -> Transform:
    """The transform of one PIL image to a (3, size, size) float32 tensor.

    For evaluation: resize, centre crop, to RGB, scale to [0, 1], normalise, in this order. For training the first two
    are a random resized crop, which draws from torch's global generator.

    Raises:
        ConfigError: `augment` was given for an evaluation transform.

    The transform itself raises `ImageError` for a picture so long and thin that resizing it would fill the memory.
    Palette and one-bit pictures are expanded before they are resized, where Pillow would take the nearest pixel.
    """
    from torchvision import transforms

    if augment is not None and not train:
        raise ConfigError(f"build_transform got augment={augment!r} with train=False; pass train=True or no augment.")
    interpolation = transforms.InterpolationMode(config.interpolation)
    steps: list[Any] = [functools.partial(_check, max(size_pair(config.size))), _expand_palette]
    if train:
        augment = augment or AugmentConfig()
        steps.append(
            transforms.RandomResizedCrop(
                config.size, scale=augment.scale, ratio=augment.ratio, interpolation=interpolation
            )
        )
    elif config.resize_mode == "squash":
        steps.append(transforms.Resize((config.size, config.size), interpolation=interpolation))
    else:
        steps.append(transforms.Resize(config.size, interpolation=interpolation))
        steps.append(transforms.CenterCrop(config.size))
    steps += [_to_rgb, transforms.ToTensor(), transforms.Normalize(mean=config.mean, std=config.std)]
    composed: Transform = transforms.Compose(steps)
    return composed


def _check(size: int, image: Image) -> Image:
    import PIL.Image

    if not isinstance(image, PIL.Image.Image):
        raise ImageError(
            f"The transform takes a PIL image, not {type(image).__name__}; clip_core.open_image opens a path or bytes."
        )
    # A picture of 20,000 x 2 would grow to half a billion pixels before its centre is cut out.
    width, height = image.size
    if not width or not height or max(width, height) / min(width, height) * size**2 > _MOST_PIXELS:
        raise ImageError(
            f"An image of {width} x {height} pixels is too long and thin: with its shorter side at {size} it would "
            f"have more than {_MOST_PIXELS:,} pixels. Crop it first."
        )
    return image


def _expand_palette(image: Image) -> Image:
    # Pillow silently resizes palette and one-bit images by nearest neighbour, whatever was asked.
    if image.mode in ("P", "1"):
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    return image


def _to_rgb(image: Image) -> Image:
    return image.convert("RGB")

"""From an image to the normalised (3, height, width) float32 tensor that a tower takes, for evaluation and training.

Made of torchvision's own transforms, so that evaluation equals open_clip's bit for bit; torchvision is imported when a
transform is built, not with the package. Images are resized one by one on the CPU: resizing batches of tensors on an
accelerator gives other numbers than Pillow's 8-bit filter, with which every published model was trained.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from clip_core.augment import AugmentConfig, plain_steps, timm_steps
from clip_core.config import PreprocessConfig, size_pair
from clip_core.errors import ConfigError, ImageError
from clip_core.images import open_image
from clip_core.modes import describe, expand_mode, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from clip_core.images import ImageSource

__all__ = ["AugmentConfig", "Transform", "build_transform", "open_rgb"]

# Of an image after resizing and before cropping; Pillow's own limit for decoding is of this order.
_MOST_PIXELS = 100_000_000

Transform = Callable[["ImageSource"], "Tensor"]


def build_transform(
    config: PreprocessConfig, *, train: bool = False, augment: AugmentConfig | None = None
) -> Transform:
    """The transform of one image, in any form that `open_image` takes, to a (3, height, width) float32 tensor.

    For evaluation: resize, crop or fill, to RGB, scale to [0, 1], normalise, in this order, as
    `open_clip.image_transform` does. For training `augment` takes the place of the first two (see `AugmentConfig`).

    The order has consequences. A transparent picture is resized with its alpha and then loses it, so that what was
    clear is mostly black; `fill_color` counts in the image's own mode, where 0 is white for CMYK. A size that is not
    square is always resized bicubically with "shortest", whatever `interpolation` says. All three are open_clip's.

    Three kinds of picture differ from open_clip, where Pillow would spoil them silently: palette and one-bit pictures
    are made RGB before they are resized, not after, where Pillow takes the nearest pixel; 16-bit grey is scaled to 8
    bits, where Pillow makes all but the darkest white; 32-bit ones with values beyond 0 to 255 are refused.

    Raises:
        ConfigError: `augment` was given for an evaluation transform, or holds a policy that timm does not know.

    The transform itself raises `ImageError` as `open_image` does, and for a picture so long and thin that resizing it
    would fill the memory.
    """
    from torchvision import transforms

    for name, value, record in (("config", config, PreprocessConfig), ("augment", augment, AugmentConfig)):
        if not isinstance(value, record) and (value is not None or name == "config"):
            raise ConfigError(
                f"build_transform got {name}={value!r}; allowed: {record.__name__}, which {record.__name__}.from_json "
                "makes from a dict; a model's own is model.config.preprocess."
            )
    if augment is not None and not train:
        raise ConfigError(f"build_transform got augment={augment!r} with train=False; pass train=True or no augment.")
    finish = [transforms.ToTensor(), transforms.Normalize(mean=config.mean, std=config.std)]
    steps: list[Any] = [open_image, expand_mode]
    if not train:
        steps += [*_evaluation_steps(config), to_rgb, *finish]
    elif augment is not None and augment.use_timm:
        changes, noisy = timm_steps(config, augment)
        steps += [to_rgb, *changes, *noisy]
    else:
        crop, changes = plain_steps(config, augment or AugmentConfig())
        steps += [crop, to_rgb, *changes, *finish]
    composed: Transform = transforms.Compose(steps)
    return composed


def open_rgb(source: ImageSource) -> Image:
    """The image of `source` in RGB, made so before it is resized; see `build_transform` for what is refused."""
    return to_rgb(expand_mode(open_image(source)))


def _evaluation_steps(config: PreprocessConfig) -> list[Any]:
    """The steps from an image of any size to one of the configured size."""
    from torchvision import transforms

    height, width = size = size_pair(config.size)
    interpolation = transforms.InterpolationMode(config.interpolation)
    if config.resize_mode == "squash":
        return [transforms.Resize(size, interpolation=interpolation)]
    if config.resize_mode == "longest":
        return [
            functools.partial(_scale, max, size, interpolation),
            functools.partial(_fill, size, config.fill_color),
        ]
    # Two ways to the shorter side, which round differently: open_clip has both, and the second is always bicubic.
    resize: Any = transforms.Resize(height, interpolation=interpolation)
    if height != width:
        resize = functools.partial(_scale, min, size, transforms.InterpolationMode.BICUBIC)
    return [functools.partial(_check_length, size), resize, transforms.CenterCrop(size)]


def _check_length(size: tuple[int, int], image: Image) -> Image:
    # A picture of 20,000 x 2 would grow to half a billion pixels before its centre is cut out.
    scale = max(size[0] / image.height, size[1] / image.width)
    if image.width * image.height * scale**2 > _MOST_PIXELS:
        raise ImageError(
            f"{describe(image)} is too long and thin: resized to cover {size[1]} x {size[0]} it would have more than "
            f"{_MOST_PIXELS:,} pixels. Crop it first."
        )
    return image


def _scale(ratio: Callable[[float, float], float], size: tuple[int, int], interpolation: Any, image: Image) -> Image:
    """`image` divided by the larger (`max`) or the smaller (`min`) of what takes its sides to `size`."""
    from torchvision.transforms import functional

    factor = ratio(image.height / size[0], image.width / size[1])
    # At least one pixel: of a very thin picture nothing would be left.
    scaled = [max(1, round(image.height / factor)), max(1, round(image.width / factor))]
    resized: Image = functional.resize(image, scaled, interpolation)
    return resized


def _fill(size: tuple[int, int], color: int, image: Image) -> Image:
    """`image` in the middle of a picture of `size`; where the room is odd, the right and the lower side get more."""
    from torchvision.transforms import functional

    high, wide = size[0] - image.height, size[1] - image.width
    if not high and not wide:
        return image
    sides = [wide // 2, high // 2, (wide + 1) // 2, (high + 1) // 2]
    filled: Image = functional.pad(image, sides, fill=color)
    return filled

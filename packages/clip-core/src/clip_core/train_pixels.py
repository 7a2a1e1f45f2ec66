"""One training picture, from its file to pixels of 8 bits, with every random draw made from a number.

The pixels are those of `build_transform(..., train=True)` before they are normalised, which `TrainPixels.normalize`
does to whole batches, on whatever device they are. Two filters make them smaller: Pillow's, with which the published
models were trained, and torch's, which takes a quarter of the time and comes near. What this room leaves out:
the numbers that are drawn (`draws`), and timm's steps (`augment`).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.augment import AugmentConfig, seed_augmentation, timm_steps
from clip_core.config import PreprocessConfig, size_pair
from clip_core.draws import Box, Draws
from clip_core.errors import ConfigError
from clip_core.images import open_image
from clip_core.modes import expand_mode, to_rgb
from clip_core.normalize import Normalize

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from clip_core.images import ImageSource

    Picture = Image | npt.NDArray[np.uint8]

__all__ = ["Resizer", "TrainPixels"]

Resizer = Literal["pillow", "torch"]
"""Which filter resizes: Pillow's, or torch's on 8 bits: much faster, at most 2 of 255 levels off Pillow 12's.

Pillow 13 begins with the columns of tall pictures, and cuts off other values in between: torch's are up to 13 levels
off on photographs then, and 30 on noise.
"""


class TrainPixels:
    """Makes (3, height, width) tensors of training pictures; pickles, and has no state.

    They are uint8, and `normalize` makes them float32. With timm's random erasing, which puts normal noise into what
    is normalised already, they are float32 at once, and `normalize` leaves them alone.
    """

    def __init__(
        self,
        config: PreprocessConfig,
        augment: AugmentConfig | None = None,
        *,
        resizer: Resizer = "pillow",
    ) -> None:
        """Raises `ConfigError` for a policy that timm does not know, and for another `resizer`."""
        from torchvision import transforms

        if resizer not in get_args(Resizer):
            raise ConfigError(f"resizer is {resizer!r}; allowed: {', '.join(get_args(Resizer))}.")
        self._augment = augment = augment or AugmentConfig()
        self.normalize = Normalize(config.mean, config.std)
        self.resizer = resizer
        self.thread_safe = not augment.use_timm
        """False where draws come from the global generators, as timm's do: then one thread of a process at a time."""
        self._size = size_pair(config.size)
        self._way = config.interpolation if augment.interpolation == "model" else augment.interpolation
        self._jitter = (
            transforms.ColorJitter(*augment.color_jitter) if isinstance(augment.color_jitter, tuple) else None
        )
        self._crop: Any = None
        self._changes: list[Any] = []
        if augment.use_timm:
            (self._crop, *changes), finish = timm_steps(config, augment)
            # Noise comes after the normalisation, so that has to be done here.
            self._changes = [*changes, *(finish if augment.re_prob else [_pixels])]

    def open(self, source: ImageSource, *, name: str | None = None) -> Picture:
        """The decoded picture, for `draw`; see `clip_core.open_image` for `source`, `name` and the errors."""
        if self.resizer == "pillow":
            return expand_mode(open_image(source, name=name))
        if isinstance(source, np.ndarray) and _is_ready(source):
            return source
        image = expand_mode(open_image(source, name=name))
        # Pillow resizes other modes as they are, clear pixels by their weight; torch's filter would see colours alone.
        return np.array(to_rgb(image)) if image.mode in ("RGB", "L") else image

    def draw(self, picture: Picture, seed: int) -> Tensor:
        """(3, height, width) of an opened picture; `seed` (0 to 2**64 - 1) decides all that is drawn.

        Raises `ImageError` for a mode that Pillow cannot make RGB.
        """
        return self._draw_plainly(picture, seed) if self._crop is None else self._draw_with_timm(picture, seed)

    def _draw_plainly(self, picture: Picture, seed: int) -> Tensor:
        augment, draws = self._augment, Draws(seed)
        box = draws.crop(*_measure(picture), augment.scale, augment.ratio)
        found = _resized(picture, box, self._size, self._way)
        mirrored = augment.hflip > 0 and draws.happens(augment.hflip)
        if self._jitter is not None and draws.happens_in_python(augment.color_jitter_prob):
            found = _jittered(_image(found), self._jitter, draws)
        if augment.gray_scale_prob and draws.happens_in_python(augment.gray_scale_prob):
            found = _image(found).convert("L").convert("RGB")
        pixels = _pixels(found)
        # At the end, where it costs least: no change looks at where a pixel is.
        return pixels.flip(-1) if mirrored else pixels

    def _draw_with_timm(self, picture: Picture, seed: int) -> Tensor:
        seed_augmentation(seed)
        found: Any
        if isinstance(picture, np.ndarray):
            # What timm's crop does, with another filter.
            box = Box(*self._crop.get_params(_as_tensor(picture), self._crop.scale, self._crop.ratio))
            ways = self._crop.interpolation
            way = random.choice(ways) if isinstance(ways, (tuple, list)) else ways
            found = _image(_resized(picture, box, self._size, way.value))
        else:
            found = self._crop(to_rgb(picture))
        for change in self._changes:
            found = change(found)
        drawn: Tensor = found
        return drawn


def _is_ready(pixels: npt.NDArray[Any]) -> bool:
    """Whether torch can resize an array as it is: RGB of 8 bits, in memory as torch takes it."""
    is_rgb = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.size > 0
    return is_rgb and pixels.flags.writeable and min(pixels.strides) >= 0


def _measure(picture: Picture) -> tuple[int, int]:
    return picture.shape[:2] if isinstance(picture, np.ndarray) else (picture.height, picture.width)


def _as_tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """(3, height, width) of (height, width, 3), in the same memory."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _resized(picture: Picture, box: Box, size: tuple[int, int], way: str) -> Image | Tensor:
    """A part of the picture as RGB of `size`: (3, height, width) where the picture is an array."""
    if isinstance(picture, np.ndarray):
        part = picture[box.top : box.top + box.height, box.left : box.left + box.width]
        return F.interpolate(_as_tensor(part)[None], size, mode=way, antialias=True)[0]
    from torchvision.transforms import InterpolationMode, functional

    return to_rgb(functional.resized_crop(picture, *box, list(size), InterpolationMode(way)))


def _jittered(image: Image, jitter: Any, draws: Draws) -> Image:
    """`image` with the changes of torchvision's ColorJitter, in an order that is drawn."""
    from torchvision.transforms import functional

    changes = (
        (functional.adjust_brightness, jitter.brightness),
        (functional.adjust_contrast, jitter.contrast),
        (functional.adjust_saturation, jitter.saturation),
        (functional.adjust_hue, jitter.hue),
    )
    order = draws.order(len(changes))
    factors = [None if limits is None else draws.uniform(*limits) for _, limits in changes]
    for number in order:
        factor = factors[number]
        if factor is not None:
            image = changes[number][0](image, factor)
    return image


def _image(found: Image | Tensor) -> Image:
    import PIL.Image

    return PIL.Image.fromarray(found.permute(1, 2, 0).numpy()) if isinstance(found, Tensor) else found


def _pixels(found: Image | Tensor) -> Tensor:
    return found if isinstance(found, Tensor) else _as_tensor(np.array(found))

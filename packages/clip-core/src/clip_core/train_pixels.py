"""One training picture, from its file to pixels of 8 bits, with every random draw made from a number.

The pixels are those of `build_transform(..., train=True)` before they are normalised, which `TrainPixels.normalize`
does to whole batches, on whatever device they are. What this room leaves out: what is drawn (`augment`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clip_core.augment import AugmentConfig, plain_steps, seed_augmentation, timm_steps
from clip_core.config import PreprocessConfig
from clip_core.images import open_image
from clip_core.modes import expand_mode, to_rgb
from clip_core.normalize import Normalize

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from clip_core.images import ImageSource

__all__ = ["TrainPixels"]


class TrainPixels:
    """Makes (3, height, width) tensors of training pictures; pickles, and has no state.

    They are uint8, and `normalize` makes them float32. With timm's random erasing, which puts normal noise into what
    is normalised already, they are float32 at once, and `normalize` leaves them alone.
    """

    def __init__(self, config: PreprocessConfig, augment: AugmentConfig | None = None) -> None:
        """Raises `ConfigError` for a policy that timm does not know."""
        from torchvision import transforms

        augment = augment or AugmentConfig()
        self.normalize = Normalize(config.mean, config.std)
        if augment.use_timm:
            changes, finish = timm_steps(config, augment)
            steps: list[Any] = [to_rgb, *changes]
        else:
            crop, plain = plain_steps(config, augment)
            steps, finish = [crop, to_rgb, *plain], [transforms.ToTensor(), self.normalize]
        # Noise comes after the normalisation, so that has to be done here.
        self._steps: list[Any] = [*steps, *(finish if len(finish) > 2 else [transforms.PILToTensor()])]

    def open(self, source: ImageSource, *, name: str | None = None) -> Image:
        """The decoded picture; see `clip_core.open_image` for `source`, `name` and the errors."""
        return expand_mode(open_image(source, name=name))

    def draw(self, image: Image, seed: int) -> Tensor:
        """(3, height, width) of an opened picture; `seed` (0 to 2**64 - 1) decides all that is drawn.

        Raises `ImageError` for a mode that Pillow cannot make RGB.
        """
        seed_augmentation(seed)
        found: Any = image
        for step in self._steps:
            found = step(found)
        pixels: Tensor = found
        return pixels

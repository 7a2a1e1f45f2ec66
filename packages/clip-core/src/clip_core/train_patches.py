"""One training picture, from its file to patches for a NaFlex tower, with every random draw made from a number.

A part of the picture is cut out that has about its shape, resized so that it has at most so many patches, changed as
`AugmentConfig` says, and cut into patches: what open_clip does with `--use-naflex`, by timm's own steps. Shapes: N the
most patches of an image, P their side in pixels. What this room leaves out: evaluation (`preprocess_naflex`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clip_core.augment import AugmentConfig, seed_augmentation, timm_steps
from clip_core.config import PreprocessConfig
from clip_core.errors import ConfigError
from clip_core.images import open_image
from clip_core.modes import expand_mode, to_rgb
from clip_core.normalize import Normalize
from clip_core.preprocess_naflex import cut_patches

if TYPE_CHECKING:
    from PIL.Image import Image

    from clip_core.images import ImageSource

__all__ = ["TrainPatches"]


class TrainPatches:
    """Makes patches of training pictures; pickles, and has no state.

    They are uint8, and `normalize` makes them float32. With random erasing, which puts normal noise into what is
    normalised already, they are float32 at once, and `normalize` leaves them alone.
    """

    def __init__(
        self, config: PreprocessConfig, patch_size: int, max_patches: int, augment: AugmentConfig | None = None
    ) -> None:
        """
        Args:
            config: mean, standard deviation and filter are used.
            patch_size: P.
            max_patches: N.
            augment: with `use_timm`, since the steps are timm's; `ratio` is that of the part to the picture's own.

        Raises `ConfigError` for an augmentation without `use_timm`, and for a policy that timm does not know.
        """
        from torchvision import transforms

        augment = augment or AugmentConfig(use_timm=True)
        if not augment.use_timm:
            raise ConfigError("AugmentConfig.use_timm is False; allowed for patches: True, the steps are timm's.")
        if min(patch_size, max_patches) < 1:
            raise ConfigError(f"patches of {patch_size} pixels, {max_patches} of them; allowed: 1 or more of each.")
        self.thread_safe = False
        """Draws come from the global generators: one thread of a process at a time."""
        self.patch_size = patch_size
        self.max_patches = max_patches
        changes, finish = timm_steps(config, augment, naflex=True, patch_size=patch_size, max_seq_len=max_patches)
        # Noise comes after the normalisation, so that has to be done here.
        self._steps = [to_rgb, *changes, *(finish if len(finish) > 2 else [transforms.PILToTensor()])]
        self._normalize = Normalize(config.mean, config.std)

    def open(self, source: ImageSource, *, name: str | None = None) -> Image:
        """The decoded picture; see `clip_core.open_image` for `source`, `name` and the errors."""
        return expand_mode(open_image(source, name=name))

    def draw(self, image: Image, seed: int) -> dict[str, Tensor]:
        """An opened picture as "patches" (N, 3 P^2), "patch_coord" (N, 2) and "patch_valid" (N,), see `cut_patches`.

        `seed` (0 to 2**64 - 1) decides all that is drawn. A tiny picture grows a hundredfold at most, and has fewer
        patches. Raises `ImageError` for a mode that Pillow cannot make RGB.
        """
        seed_augmentation(seed)
        found: Any = image
        for step in self._steps:
            found = step(found)
        return cut_patches(found, self.patch_size, self.max_patches)

    def normalize(self, patches: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `draw` gave, stacked to (B, N, ...), with "patches" normalised float32; places without a patch are 0.

        Patches may have any size, so one object does for all sizes of a run.
        """
        values = patches["patches"]
        if values.dtype == torch.float32:
            return dict(patches)
        # Pixel after pixel with its three channels: so many images of one pixel.
        scaled = self._normalize(values.reshape(-1, 3, 1, 1)).reshape(values.shape)
        # What fills up is 0 behind the normalisation, as in evaluation, and not black before it.
        return {**patches, "patches": scaled.masked_fill_(~patches["patch_valid"][..., None], 0.0)}

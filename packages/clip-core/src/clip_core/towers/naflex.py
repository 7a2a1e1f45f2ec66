"""NaFlex: timm's transformer over the patches of images of any shape, as images or as patches with their places.

Dehghani et al. 2023 (NaViT) and Tschannen et al. 2025 (SigLIP 2, NaFlex). Shapes: B batch, N patches, P patch side in
pixels, D features. The patches come from `preprocess_naflex`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from clip_core.config import NaFlexConfig
from clip_core.errors import ConfigError
from clip_core.towers.timm_tower import TimmTower

__all__ = ["NaFlexTower"]

_KEYS = ("patches", "patch_coord", "patch_valid")


class NaFlexTower(TimmTower):
    """Images (B, 3, height, width) of any shape, or patches, -> features (B, D)."""

    config: NaFlexConfig

    def __init__(self, config: NaFlexConfig, embed_dim: int) -> None:
        super().__init__(config, embed_dim)
        embeds = getattr(self.trunk, "embeds", None)
        side = None if embeds is None else tuple(embeds.patch_size)
        if side != (config.patch_size, config.patch_size):
            raise ConfigError(
                f"patch_size is {config.patch_size}, but timm's {config.name} with these options has "
                f"{'no patch embedding of this kind' if side is None else side}."
            )

    def check_images(self, images: Tensor) -> None:
        """Raise `ConfigError` unless `images` is (B, 3, height, width) with sides that the patch divides."""
        side = self.config.patch_size
        fits = images.ndim == 4 and images.shape[1] == 3
        if not fits or any(not length or length % side for length in images.shape[2:]):
            raise ConfigError(
                f"encode_image got a tensor of shape {tuple(images.shape)}; allowed: (batch, 3, height, width), both "
                f"multiples of {side}. Use the transform that comes with the model."
            )

    def patch_features(self, patches: Mapping[str, Tensor], *, alone: bool = False) -> Tensor:
        """Patches of images -> (B, D), not normalised.

        Args:
            patches: "patches" (B, N, 3 P^2), any floating dtype, pixel after pixel with its three channels; P is the
                tower's own patch size, or another one, for which the embedding is resampled. "patch_coord" (B, N, 2)
                int64, row and column of each; "patch_valid" (B, N) bool, False where a place is filled up and no
                patch. Other keys are not read.
            alone: compute each image by itself.

        Raises `ConfigError` for a missing key, and for a shape or a dtype that does not fit.
        """
        missing = [key for key in _KEYS if key not in patches]
        if missing:
            raise ConfigError(f"encode_image got no {missing[0]!r} in a dict of patches; it needs {', '.join(_KEYS)}.")
        values, coord, valid = (patches[key] for key in _KEYS)
        width = 3 * self.config.patch_size**2
        side = _side_of(values)
        fits = side == self.config.patch_size or (side > 0 and self.takes_other_patches)
        if not fits or coord.shape != (*values.shape[:2], 2) or valid.shape != values.shape[:2]:
            raise ConfigError(
                f"encode_image got patches {tuple(values.shape)}, patch_coord {tuple(coord.shape)} and patch_valid "
                f"{tuple(valid.shape)}; allowed: (batch, N, {width}), (batch, N, 2) and (batch, N)."
            )
        if not values.is_floating_point() or coord.is_floating_point() or valid.dtype != torch.bool:
            raise ConfigError(
                f"encode_image got patches as {values.dtype}, patch_coord as {coord.dtype} and patch_valid as "
                f"{valid.dtype}; allowed: a floating dtype, torch.int64 and torch.bool."
            )
        if not valid.any(dim=1).all():
            raise ConfigError("encode_image got an image without a valid patch; allowed: one patch or more in each.")
        values = values.to(next(self.parameters()).dtype)
        if alone and len(values):
            rows = [self._read(values[i : i + 1], coord[i : i + 1], valid[i : i + 1]) for i in range(len(values))]
            return torch.cat(rows)
        return self._read(values, coord, valid)

    @property
    def takes_other_patches(self) -> bool:
        """Whether patches may have another side than `config.patch_size`."""
        return bool(self.trunk.embeds.is_linear and self.trunk.embeds.norm_input is None)

    def _read(self, values: Tensor, coord: Tensor, valid: Tensor) -> Tensor:
        side = _side_of(values)
        if side != self.config.patch_size:
            # The embedding that gives smooth patches of this side what the own one gives them when they are resized
            # (Beyer et al. 2023, FlexiViT); timm recognises by the shape that patches are of another side.
            self._resample()
            values = values.reshape(*values.shape[:2], side, side, 3)
        features: Tensor = self.head(self.trunk(values, patch_coord=coord, patch_valid=valid))
        return features

    def _resample(self) -> None:
        """Give the trunk what resamples its embedding; it has no weights, so that no checkpoint changes."""
        from timm.layers.patch_embed import PatchEmbedInterpolator

        embeds = self.trunk.embeds
        if embeds.patch_interpolator is None:
            side, device = self.config.patch_size, embeds.proj.weight.device
            embeds.patch_interpolator = PatchEmbedInterpolator((side, side), 3, embeds.embed_dim).to(device)
            embeds.enable_patch_interpolator = True


def _side_of(patches: Tensor) -> int:
    """Pixels of the side of patches (B, N, 3 P^2); 0 where the shape is another."""
    if patches.ndim != 3 or patches.shape[2] % 3:
        return 0
    side = math.isqrt(patches.shape[2] // 3)
    return side if 3 * side**2 == patches.shape[2] else 0

"""Patches for a NaFlex tower: an image keeps its shape and is resized so that it has about as many patches as wanted.

Tschannen et al. 2025 (SigLIP 2, NaFlex). Shapes: N the most patches of an image, P their side in pixels. What leaves
the transform is padded to N places, so that torch's own collate function makes batches of it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clip_core.config import ClipConfig, NaFlexConfig
from clip_core.errors import ConfigError
from clip_core.preprocess import open_rgb

if TYPE_CHECKING:
    from clip_core.images import ImageSource

__all__ = ["PatchTransform", "build_patch_transform", "cut_patches", "size_for_patches", "stack_patches"]

PatchTransform = Callable[["ImageSource"], dict[str, Tensor]]


def build_patch_transform(config: ClipConfig, max_patches: int | None = None) -> PatchTransform:
    """The transform of one image, in any form that `open_image` takes, to the patches that a NaFlex model reads.

    Args:
        config: of a model with a NaFlex tower.
        max_patches: how many patches N an image may have; None takes the tower's own number. More resolve more.

    Returns:
        A function to {"patches" (N, 3 P^2) float32, "patch_coord" (N, 2) int64, "patch_valid" (N,) bool}; places
        that are not filled are zeros and not valid.

    Raises:
        ConfigError: the image tower takes no patches, or the number is below 1.
    """
    from torchvision import transforms

    tower, settings = config.image, config.preprocess
    if not isinstance(tower, NaFlexConfig):
        raise ConfigError(f"The image tower is of kind {tower.kind!r}; allowed: 'naflex', which takes patches.")
    side, most = tower.patch_size, tower.max_patches if max_patches is None else max_patches
    if most < 1:
        raise ConfigError(f"max_patches is {most}; allowed: 1 or more.")
    interpolation = transforms.InterpolationMode(settings.interpolation)
    finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean=settings.mean, std=settings.std)])
    # No closure: workers of a DataLoader may have to pickle it.
    return functools.partial(_patches, side=side, most=most, interpolation=interpolation, finish=finish)


def size_for_patches(size: tuple[int, int], patch_size: int, max_patches: int) -> tuple[int, int]:
    """The (height, width) that an image of `size` gets: the largest of its shape with so many patches at most.

    Both sides are rounded up to whole patches, so the shape changes by less than one patch on each.
    """

    def patches(scale: float) -> tuple[int, int]:
        height, width = (max(1, math.ceil(length * scale / patch_size)) for length in size)
        return height, width

    # The count rises with the scale in steps, so the largest scale that fits is found by halving. The bounds are so
    # wide that the smallest always fits (one long row may not be longer than `max_patches`) and the largest does not.
    low, high = 0.0, (max_patches + 1) * patch_size / min(size)
    for _ in range(60):
        middle = (low + high) / 2
        rows, columns = patches(middle)
        low, high = (middle, high) if rows * columns <= max_patches else (low, middle)
    rows, columns = patches(low)
    return rows * patch_size, columns * patch_size


def stack_patches(samples: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `encode_image` takes, each of shape (B, N, ...), from the results of one transform for B images."""
    samples = list(samples)
    if not samples:
        raise ConfigError("stack_patches got no images; allowed: one or more.")
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def cut_patches(image: Tensor, side: int, most: int) -> dict[str, Tensor]:
    """An image (3, height, width) of whole patches as its patches, row after row, filled up with zeros to `most`."""
    rows, columns = image.shape[1] // side, image.shape[2] // side
    count = rows * columns
    grid = image.reshape(3, rows, side, columns, side).permute(1, 3, 2, 4, 0)
    patches = image.new_zeros(most, 3 * side * side)
    patches[:count] = grid.reshape(count, -1)
    coord = torch.zeros(most, 2, dtype=torch.int64)
    coord[:count] = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    return {"patches": patches, "patch_coord": coord, "patch_valid": torch.arange(most) < count}


def _patches(
    source: ImageSource, *, side: int, most: int, interpolation: Any, finish: Callable[[Any], Tensor]
) -> dict[str, Tensor]:
    from torchvision.transforms import functional

    image = open_rgb(source)
    size = size_for_patches((image.height, image.width), side, most)
    return cut_patches(finish(functional.resize(image, size, interpolation)), side, most)

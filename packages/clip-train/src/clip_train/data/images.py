"""The images of a batch, which are one tensor, or with NaFlex a dict of tensors: what is done to either.

What this room leaves out: how they are made (`decode`, `naflex`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

__all__ = ["Images", "describe", "each", "size_in_bytes"]

Images = Any
"""A tensor (B, 3, height, width), or a dict of "patches" (B, N, 3 P^2), "patch_coord" (B, N, 2) and "patch_valid"
(B, N), as `clip_core.preprocess_naflex` has them."""


def each(images: Images, change: Callable[[Tensor], Tensor]) -> Images:
    """`change` of the tensor, or of every tensor."""
    if isinstance(images, dict):
        return {name: change(value) for name, value in images.items()}
    return change(images)


def size_in_bytes(images: Images) -> int:
    """All of them together."""
    return sum(value.nbytes for value in images.values()) if isinstance(images, dict) else int(images.nbytes)


def describe(images: Images) -> str:
    """How large one is, for people."""
    if isinstance(images, dict):
        _, places, numbers = images["patches"].shape
        side = round((numbers / 3) ** 0.5)
        return f"images of up to {places} patches of {side} x {side} pixels"
    return f"images {tuple(images.shape[1:])}"

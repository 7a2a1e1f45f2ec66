"""The modes of Pillow's images: made ready to be resized, and made RGB, without losses that Pillow keeps quiet about.

What this room leaves out: opening (`images`), and sizes (`preprocess`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clip_core.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["describe", "expand_mode", "to_rgb"]


def expand_mode(image: Image) -> Image:
    """`image` in a mode in which Pillow can resize it without loss.

    Raises `ImageError` for numbers of which nothing says how bright they are.
    """
    import PIL.Image

    if image.mode in ("1", "P", "PA"):
        # Pillow resizes palettes and single bits by the nearest pixel, whatever was asked. By way of RGBA because a
        # palette with several clear colours makes Pillow warn otherwise; the colours are the same.
        return image.convert("RGBA").convert("RGB")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        # Old versions of Pillow open 16-bit PNG files as 32-bit ones.
        return PIL.Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 255):  # also where a value is no number
            raise ImageError(
                f"{describe(image)} is of mode {image.mode} with values from {low} to {high}, and nothing says "
                "which of them is white. Scale them to 0 to 255 first."
            )
    return image


def to_rgb(image: Image) -> Image:
    """`image` in RGB. Raises `ImageError` for a mode that Pillow cannot make so."""
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(
            f"{describe(image)} is of mode {image.mode}, which Pillow cannot make RGB: {error}."
        ) from error


def describe(image: Image) -> str:
    """What an error calls it."""
    name = getattr(image, "filename", "")
    return f"{f'The image {name}' if name else 'An image'} of {image.width} x {image.height} pixels"

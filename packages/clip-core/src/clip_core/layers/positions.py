"""Tables of positions: the fixed sine and cosine one, and interpolation of a table to another size.

Shapes: G a grid (rows, columns), N positions, W width. A table of an image tower has one row for the class token
before those of the grid, which is in reading order.
"""

from __future__ import annotations

import logging
import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["resize_grid", "resize_line", "sin_cos_grid", "square_grid", "warn_of_grid"]

log = logging.getLogger(__name__)


def sin_cos_grid(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed positions of a grid (Chen et al. 2021, MoCo v3): float32 (1 + rows * columns, W), zeros first.

    The first half of a row is of the column, the second of the row; each half is W/4 sines, then W/4 cosines, of
    wavelengths from 2 pi up to almost 10,000 times that. `width` is a multiple of 4.
    """
    rows, columns = grid
    waves = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))

    def line(length: int) -> Tensor:
        angles = torch.arange(length, dtype=torch.float64)[:, None] * waves
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # (length, W/2)

    of_column = line(columns)[None, :].expand(rows, -1, -1)
    of_row = line(rows)[:, None].expand(-1, columns, -1)
    table = torch.cat([of_column, of_row], dim=-1).reshape(rows * columns, width)
    return torch.cat([table.new_zeros(1, width), table]).float()


def square_grid(patches: int) -> tuple[int, int] | None:
    """The square grid of so many patches, or None where there is none."""
    side = math.isqrt(patches)
    return (side, side) if side * side == patches and side else None


def resize_grid(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A table (1 + rows * columns, W) of grid `old` for grid `new`, bicubic with antialias; the first row stays."""
    # In float32: not every device interpolates in less, and the filter's taps would be rounded.
    image = table[1:].float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=new, mode="bicubic", antialias=True, align_corners=False)
    rows = image.permute(0, 2, 3, 1).reshape(new[0] * new[1], -1)
    return torch.cat([table[:1], rows.to(table.dtype)])


def warn_of_grid(count: int, old: tuple[int, int] | None, new: tuple[int, int]) -> None:
    """Log a warning where a table of `count` places is of grid `old`, by its number, and stands for grid `new`."""
    if old is not None and old != new:
        log.warning(
            "The %d positions of the image tower are taken for a grid of %dx%d; should they be of %dx%d, the "
            "features are wrong: then ask for an image size that has another number of patches",
            count,
            *new,
            *old,
        )


def resize_line(table: Tensor, length: int) -> Tensor:
    """A table (N, W) with `length` rows instead: linear between neighbours, ends not aligned."""
    line = F.interpolate(table.float().T[None], size=length, mode="linear", align_corners=False)
    return line[0].T.contiguous().to(table.dtype)

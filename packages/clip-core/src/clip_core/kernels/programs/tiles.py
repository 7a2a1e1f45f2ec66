"""What the programs of the losses share: tiles of cosines, their sizes for each kind of GPU, and slabs of tiles.

Shapes: b rows, B columns, D features, as in `blocks`. A program multiplies BM rows by BN columns, BK features at a
time. A panel is some thousand rows, whose features stay in the second-level cache while all columns stream by. A slab
is the part of the gradient with respect to the cosines that exists at one time.

The number of rows and columns is a number to the programs, not a constant: one program serves batches of every size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from clip_core.kernels.programs.launching import INTERPRETED

__all__ = [
    "Slab",
    "Tile",
    "Tiles",
    "aligned",
    "block_of_cosines",
    "panel_rows",
    "parts_of_columns",
    "pieces",
    "slabs",
    "tiles_for",
    "tiles_on",
]

MOST_PARTS = 64
"""Partial results for each row and each column at a time, which bounds the memory for them."""
PANEL_ROWS = 8192
"""At most; 8 MiB of features of 512."""
SLAB_BYTES = 256 << 20
"""Of a slab, at most. Its two products are then large enough to be limited by arithmetic."""


class Tile(NamedTuple):
    """How a program is started."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    registers: int | None = None
    """Per thread at most, where this lets a second program run beside."""

    def options(self, features: Tensor) -> dict[str, object]:
        """The constants of a program that multiplies `features`, (n, D), and how it is started.

        float32 is multiplied as three products of TensorFloat-32, since one would be off by 1e-3.
        """
        return {
            "D": features.shape[1],
            "BM": self.rows,
            "BN": self.columns,
            "BK": self.depth,
            "PIECES": 4 if self.columns >= 128 else 1,
            "PRECISION": "tf32x3" if features.dtype == torch.float32 else "ieee",
            "INTERPRETED": INTERPRETED,
            "num_warps": self.warps,
            "num_stages": self.stages,
            "maxnreg": self.registers,
        }


class Tiles(NamedTuple):
    """Of the three programs that make tiles of cosines."""

    statistics: Tile
    weights: Tile
    losses: Tile


_TILES = {
    # (architecture at least, bytes of an element); chosen by what the compiler says of registers and shared memory
    # (tests/test_loss_programs.py), since no GPU has measured them.
    (120, 2): Tiles(*(Tile(128, 128, 32, 8, 3),) * 3),  # no more shared memory than 8.6, and its instructions
    (120, 4): Tiles(*(Tile(128, 64, 32, 8, 2),) * 3),
    (100, 2): Tiles(*(Tile(128, 128, 64, 8, 3),) * 3),
    (100, 4): Tiles(*(Tile(128, 128, 32, 8, 3),) * 3),
    (90, 2): Tiles(Tile(256, 128, 64, 8, 3), Tile(128, 128, 64, 8, 3, registers=128), Tile(128, 128, 64, 8, 3)),
    (90, 4): Tiles(*(Tile(128, 128, 32, 8, 3),) * 3),
    (86, 2): Tiles(*(Tile(128, 128, 32, 8, 3),) * 3),
    (86, 4): Tiles(*(Tile(128, 64, 32, 8, 2),) * 3),
    (80, 2): Tiles(*(Tile(128, 128, 64, 8, 3),) * 3),
    (80, 4): Tiles(*(Tile(128, 64, 32, 8, 3),) * 3),
}


def tiles_for(dtype: torch.dtype, depth: int, architecture: int) -> Tiles:
    """The configurations for features (n, `depth`) of `dtype`, by these and the architecture alone.

    Args:
        dtype: bfloat16, float16 or float32.
        depth: D.
        architecture: 90 for compute capability 9.0.
    """
    floor = max(least for least, _ in _TILES if least <= architecture)
    least = min(64, max(16, triton.next_power_of_2(depth)))
    return Tiles(*(tile._replace(depth=min(tile.depth, least)) for tile in _TILES[floor, dtype.itemsize]))


def tiles_on(features: Tensor) -> Tiles:
    """`tiles_for` the device of `features`; on a CPU those of compute capability 8.0."""
    is_cuda = features.device.type == "cuda"
    major, minor = torch.cuda.get_device_capability(features.device) if is_cuda else (8, 0)
    return tiles_for(features.dtype, features.shape[1], 10 * major + minor)


def panel_rows(tile: Tile) -> int:
    """Rows in a panel: whole tiles."""
    return max(1, min(MOST_PARTS, PANEL_ROWS // tile.rows)) * tile.rows


def parts_of_columns(columns: int, tile: Tile) -> tuple[int, int]:
    """In how many parts the tiles along the columns are done, and how many tiles are in each."""
    across = triton.cdiv(columns, tile.columns)
    each = max(1, triton.cdiv(across, MOST_PARTS))
    return triton.cdiv(across, each), each


def aligned(features: Tensor) -> Tensor:
    """`features`, or a copy, with rows that start at multiples of 16 elements and hold their elements side by side.

    Without this the compiler cannot copy to shared memory ahead of time. A stride of 0 between rows is as good.
    """
    count, width = features.shape
    in_place = features.stride(1) == 1 and features.stride(0) % 16 == 0 and features.data_ptr() % 16 == 0
    if in_place or not features.numel():
        return features
    copy = features.new_empty(count, -(-width // 16) * 16)[:, :width]
    return copy.copy_(features)


class Slab(NamedTuple):
    """Rows `top` to `bottom` - 1 by columns `left` to `right` - 1."""

    top: int
    bottom: int
    left: int
    right: int

    def blocks(self, tile: Tile) -> tuple[int, int]:
        """Tiles along the rows and along the columns."""
        return triton.cdiv(self.bottom - self.top, tile.rows), triton.cdiv(self.right - self.left, tile.columns)


def slabs(rows: int, columns: int, tile: Tile, bytes_per_element: int) -> Iterator[Slab]:
    """All of the matrix of cosines, panel by panel; each slab starts at a multiple of the tile."""
    high = panel_rows(tile)
    padded = triton.cdiv(max(1, min(high, rows)), tile.rows) * tile.rows
    wide = max(1, SLAB_BYTES // (bytes_per_element * padded * tile.columns)) * tile.columns
    for top in range(0, rows, high):
        for left in range(0, columns, wide):
            yield Slab(top, min(top + high, rows), left, min(left + wide, columns))


@triton.jit
def block_of_cosines(
    rows,
    columns,
    row_index,
    column_index,
    row_stride,
    column_stride,
    depth,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """The inner products (BM, BN) of the rows and columns at these indices (int64, all within range), in float32.

    `depth` is D as a number, so that the loop is not unrolled. Triton 3.6's interpreter cannot loop up to a number, so
    it takes the constant.
    """
    k = tl.arange(0, BK)
    row_at = rows + (row_index * row_stride)[:, None] + k[None, :]
    column_at = columns + (column_index * column_stride)[None, :] + k[:, None]
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, D if INTERPRETED else depth, BK):
        if D % BK == 0:
            x = tl.load(row_at)
            y = tl.load(column_at)
        else:
            x = tl.load(row_at, mask=(start + k < D)[None, :], other=0.0)
            y = tl.load(column_at, mask=(start + k < D)[:, None], other=0.0)
        if INTERPRETED:
            x = x.to(tl.float32)
            y = y.to(tl.float32)
        total = tl.dot(x, y, total, input_precision=PRECISION)
        row_at += BK
        column_at += BK
    return total


@triton.jit
def pieces(x, COUNT: tl.constexpr):
    """(BM, BN) as COUNT (1 or 4) of (BM, BN // COUNT), from left to right.

    What is computed of a tile is computed of one piece at a time, or there are not enough registers.
    """
    BM: tl.constexpr = x.shape[0]
    BN: tl.constexpr = x.shape[1]
    if COUNT == 1:
        return (x,)
    else:
        left, right = tl.split(tl.permute(tl.reshape(x, (BM, 2, BN // 2)), (0, 2, 1)))
        first, second = tl.split(tl.permute(tl.reshape(left, (BM, 2, BN // 4)), (0, 2, 1)))
        third, fourth = tl.split(tl.permute(tl.reshape(right, (BM, 2, BN // 4)), (0, 2, 1)))
        return first, second, third, fourth

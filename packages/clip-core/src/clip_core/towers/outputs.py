"""What leaves the blocks of a tower, in the shapes and under the choices that people know from open_clip and timm.

Shapes: B batch, T tokens, P of them before the patches (the class token, say), W the tower's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.towers.interface import ImageTower

__all__ = ["ImageFormat", "as_layers", "split_tokens"]

ImageFormat = Literal["NCHW", "NLC"]


def as_layers(indices: int | Sequence[int] | None) -> list[int] | None:
    """Blocks as towers take them: a number is that many last ones, a list is those, None is all.

    Raises:
        ConfigError: a number below 1.
    """
    if not isinstance(indices, int):
        return None if indices is None else list(indices)
    if indices < 1:
        raise ConfigError(f"The number of last blocks is {indices}; allowed: 1 or more, a list of blocks, or None.")
    return list(range(-indices, 0))


def split_tokens(tower: ImageTower, output: Tensor, form: ImageFormat) -> tuple[Tensor, Tensor]:
    """One block's output as (the image's part, the tokens before the patches (B, P, W)).

    The image's part is (B, W, rows, columns) or, as "NLC", (B, rows * columns, W).

    Raises:
        ConfigError: another `form`, or tokens that lie on no grid, which "NCHW" needs.
    """
    if form not in ("NCHW", "NLC"):
        raise ConfigError(f"image_output_fmt is {form!r}; allowed: NCHW, NLC.")
    if output.ndim == 4:
        none = output.new_empty(output.shape[0], 0, output.shape[1])
        return (output if form == "NCHW" else output.flatten(2).transpose(1, 2)), none
    grid = getattr(tower, "grid", None)
    if grid is None:
        grid = getattr(getattr(getattr(tower, "trunk", None), "patch_embed", None), "grid_size", None)
    before = output.shape[1] - grid[0] * grid[1] if grid is not None else 0
    if before < 0 or (grid is None and form == "NCHW"):
        raise ConfigError("The tokens of this image tower lie on no fixed grid; allowed: image_output_fmt='NLC'.")
    patches = output[:, before:]
    if form == "NCHW":
        patches = patches.transpose(1, 2).unflatten(2, grid)  # type: ignore[no-untyped-call]  # torch has no types here
    return patches, output[:, :before]

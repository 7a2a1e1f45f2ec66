"""What the contrastive losses are made of, without autograd: some rows against all columns, by Triton or by torch.

The operations of `contrastive` and `sigmoid` and a loss over several processes are built on these. `blocks` has the
arithmetic in plain torch, `programs` has it for CUDA; both take and give the same.

Shapes: b rows (images), B columns (texts), D features. Row i and column `offset + i` are a pair.

| features | by torch | by Triton |
|---|---|---|
| float64 | float64 | never there |
| bfloat16, float16 | widened to float32 | multiplied as they are, summed in float32 |
| float32 | float32 | float32, each product in three of TF32 |
| float32 under autocast | float32 | rounded once to autocast's dtype, then as above |
| of two dtypes | the wider one's row (bfloat16 and float16: that of float32) | the same |

Everything behind the products is float32 (float64 for float64), and so are all results.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clip_core.kernels import blocks, dispatch
from clip_core.kernels.blocks import Gradients, Statistics, log_sum_exp
from clip_core.kernels.dispatch import Backend

__all__ = [
    "Choice",
    "Gradients",
    "Statistics",
    "choose",
    "contrastive_gradients",
    "contrastive_statistics",
    "log_sum_exp",
    "operand",
    "pair_cosines",
    "sigmoid_loss",
    "wide",
]

_HALVES = (torch.bfloat16, torch.float16)
_PAIRS_AT_ONCE = 8192


class Choice(NamedTuple):
    """How a loss of given features is computed."""

    backend: Backend
    dtype: torch.dtype
    """Of the features as they are multiplied, see `operand`."""


def choose(x: Tensor, y: Tensor) -> Choice:
    """The choice for features `x` and `y` of any shapes, from their dtypes and device and from autocast.

    Ask where the loss is called: neither autocast nor `use_backend` need be the same in a backward pass.
    """
    dtype = torch.promote_types(x.dtype, y.dtype)
    backend = dispatch.loss_backend(y if y.dtype == torch.float64 else x)
    if dtype == torch.float64 or backend == "torch":
        return Choice(backend, torch.float64 if dtype == torch.float64 else torch.float32)
    kind = x.device.type
    if dtype not in _HALVES and torch.is_autocast_enabled(kind):
        autocast = torch.get_autocast_dtype(kind)
        dtype = autocast if autocast in _HALVES else torch.float32
    return Choice(backend, dtype if dtype in _HALVES else torch.float32)


def operand(features: Tensor, dtype: torch.dtype) -> Tensor:
    """`features` as the functions below take them: rounded once to a choice's `dtype`, rows one after another."""
    return features.detach().to(dtype).contiguous()


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of everything but the products, for features of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def pair_cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """(b,): the products of each row with the column of the same index, in the dtype of `wide`."""
    if rows.device.type == "cpu" or not len(rows):
        return blocks.pair_cosines(_widened(rows), _widened(columns))
    # Not all at once: widened features and their products would be more memory than the rest of the loss takes.
    some = [slice(start, start + _PAIRS_AT_ONCE) for start in range(0, len(rows), _PAIRS_AT_ONCE)]
    return torch.cat([blocks.pair_cosines(_widened(rows[here]), _widened(columns[here])) for here in some])


def contrastive_statistics(
    rows: Tensor, columns: Tensor, own: Tensor, scale: Tensor, offset: int = 0, *, backend: Backend | None = None
) -> tuple[Statistics, Statistics]:
    """As `blocks.contrastive_statistics`, by `backend`.

    Args:
        rows: (b, D) of a choice's dtype.
        columns: (B, D) of the same.
        own: (B,), the `pair_cosines` of each column, whichever process holds its row.
        scale: scalar of the dtype of `wide`.
        offset: the column that is the pair of the first row.
        backend: that of the choice; None asks `dispatch.loss_backend`.
    """
    if (backend or dispatch.loss_backend(rows)) == "torch":
        return blocks.contrastive_statistics(_widened(rows), _widened(columns), own, scale, offset)
    from clip_core.kernels.programs import contrastive

    return contrastive.contrastive_statistics(rows, columns, own, scale, offset)


def contrastive_gradients(
    rows: Tensor,
    columns: Tensor,
    own: Tensor,
    scale: Tensor,
    row_loss: Tensor,
    column_loss: Tensor,
    offset: int = 0,
    *,
    for_rows: bool = True,
    for_columns: bool = True,
    backend: Backend | None = None,
) -> Gradients:
    """As `blocks.contrastive_gradients`, by `backend`; arguments as there and for `contrastive_statistics`."""
    if (backend or dispatch.loss_backend(rows)) == "torch":
        return blocks.contrastive_gradients(
            _widened(rows),
            _widened(columns),
            own,
            scale,
            row_loss,
            column_loss,
            offset,
            for_rows=for_rows,
            for_columns=for_columns,
        )
    from clip_core.kernels.programs import contrastive

    return contrastive.contrastive_gradients(
        rows, columns, own, scale, row_loss, column_loss, offset, for_rows=for_rows, for_columns=for_columns
    )


def sigmoid_loss(
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    bias: Tensor,
    offset: int = 0,
    *,
    gradients: bool = True,
    for_rows: bool = True,
    for_columns: bool = True,
    backend: Backend | None = None,
) -> tuple[Tensor, Gradients]:
    """As `blocks.sigmoid_loss`, by `backend`; arguments as there and for `contrastive_statistics`."""
    wanted = {"gradients": gradients, "for_rows": for_rows, "for_columns": for_columns}
    if (backend or dispatch.loss_backend(rows)) == "torch":
        return blocks.sigmoid_loss(_widened(rows), _widened(columns), scale, bias, offset, **wanted)
    from clip_core.kernels.programs import sigmoid

    return sigmoid.sigmoid_loss(rows, columns, scale, bias, offset, **wanted)


def _widened(features: Tensor) -> Tensor:
    return features.to(wide(features.dtype))

"""The ring: no process ever holds more texts than a few times its own. For batches whose gathered texts do not fit.

Shapes: W processes, b pairs on each, D features. Blocks of b texts go from neighbour to neighbour; the next one is
under way while this one is computed. The arithmetic is that of the one-sided scheme, block by block.

CLIP: blocks go once round to the right, followed by the statistics of their columns, which after W - 1 hops are
complete one process before home. From there blocks go back to the left, with the losses of their columns and followed
by their gradients, and end where they began. SigLIP: blocks go to the right and their gradients follow them home.
A hop that follows is started when this process has added its part, and has the next block's time to arrive.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clip_core.kernels import parts
from clip_train.loss.exchange import Exchange, Hop
from clip_train.loss.share import Found, Share, Wanted, mean_loss

__all__ = ["clip", "siglip"]

_FOLLOWING = 1  # the channel of what follows the blocks


class _Block(NamedTuple):
    """Texts of one process on their way back, and what has to be known of them."""

    texts: Tensor
    """(b, D)"""
    own: Tensor
    """(b,) cosines with their images."""
    loss: Tensor
    """(b,) of these columns, float64."""


def clip(share: Share, exchange: Exchange, wanted: Wanted) -> Found:
    """CLIP's loss of this process's pairs, with gradients."""
    own = parts.pair_cosines(share.rows, share.columns(share.texts))
    texts, of_pairs = share.texts, own
    following: Hop | None = None
    of_rows: parts.Statistics | None = None
    of_columns: parts.Statistics | None = None
    for step in range(exchange.size):
        onward = None if step == exchange.size - 1 else exchange.hop([texts, of_pairs], 1)
        cosines, offset = (own, 0) if step == 0 else _without_pairs(of_pairs, own)
        of_these, of_columns = parts.contrastive_statistics(
            share.rows, share.columns(texts), cosines, share.scale, offset, backend=share.choice.backend
        )
        of_columns = parts.Statistics(*(part[: len(own)] for part in of_columns))
        of_rows = of_these if of_rows is None else of_rows.merged(of_these)
        if following is not None:
            of_columns = parts.Statistics(*following.wait()).merged(of_columns)
        if onward is not None:
            following = exchange.hop(of_columns, 1, _FOLLOWING)
            texts, of_pairs = onward.wait()
    assert of_rows is not None
    assert of_columns is not None
    row_loss, column_loss = (parts.log_sum_exp(found, torch.float64) for found in (of_rows, of_columns))
    if not wanted.anything:
        (mine,) = exchange.hop([column_loss], 1).wait()
        return Found.without_gradients(mean_loss(row_loss, mine, share))
    return _clip_gradients(share, exchange, wanted, own, row_loss, _Block(texts, of_pairs, column_loss))


def _clip_gradients(
    share: Share, exchange: Exchange, wanted: Wanted, own: Tensor, row_loss: Tensor, block: _Block
) -> Found:
    """The way back: `block` is that of the process to the right, and the last one is this process's own."""
    following: Hop | None = None
    total: parts.Gradients | None = None
    for step in range(exchange.size):
        last = step == exchange.size - 1
        onward = None if last else exchange.hop(block, -1)
        if wanted.here:
            cosines, offset = (own, 0) if last else _without_pairs(block.own, own)
            losses, _ = (block.loss, 0) if last else _without_pairs(block.loss, block.loss)
            found = parts.contrastive_gradients(
                share.rows,
                share.columns(block.texts),
                cosines,
                share.scale,
                row_loss,
                losses,
                offset,
                for_rows=wanted.images,
                for_columns=wanted.texts,
                backend=share.choice.backend,
            )
            if following is not None:
                found.columns.add_(*following.wait())
            total = _added(total, found)
            if wanted.texts and not last:
                following = exchange.hop([found.columns], -1, _FOLLOWING)
        if onward is not None:
            block = _Block(*onward.wait())
    return _found(mean_loss(row_loss, block.loss, share), total, wanted, 2 * len(share.rows))


def siglip(share: Share, exchange: Exchange, wanted: Wanted) -> Found:
    """SigLIP's loss of this process's images with all texts, with gradients."""
    texts, pairs, size = share.texts, len(share.rows), exchange.size
    loss, following, mine = torch.zeros((), dtype=torch.float64, device=texts.device), None, None
    total: parts.Gradients | None = None
    for step in range(size):
        onward = None if step == size - 1 else exchange.hop([texts], 1)
        these, found = parts.sigmoid_loss(
            share.rows,
            share.columns(texts),
            share.scale,
            share.bias,
            0 if step == 0 else pairs,
            gradients=wanted.here,
            for_rows=wanted.images,
            for_columns=wanted.texts,
            backend=share.choice.backend,
        )
        loss += these
        total = _added(total, found)
        if wanted.texts and step == 0:
            mine = found.columns
        elif wanted.texts:
            if following is not None:
                found.columns.add_(*following.wait())
            following = exchange.hop([found.columns], 1, _FOLLOWING)
        if onward is not None:
            (texts,) = onward.wait()
    if total is not None and mine is not None and following is not None:
        total = total._replace(columns=mine.add_(*following.wait()))
    return _found((loss / pairs).to(share.scale.dtype), total, wanted, pairs)


def _without_pairs(of_columns: Tensor, of_pairs: Tensor) -> tuple[Tensor, int]:
    """A vector over columns and the offset for the block of another process: the pairs lie behind its last column."""
    return torch.cat([of_columns, of_pairs]), len(of_columns)


def _added(total: parts.Gradients | None, found: parts.Gradients) -> parts.Gradients:
    """The sum for this process's rows and the scalars; the columns are the last block's."""
    if total is None:
        return found
    return parts.Gradients(
        total.rows.add_(found.rows), found.columns, total.scale + found.scale, total.bias + found.bias
    )


def _found(loss: Tensor, total: parts.Gradients | None, wanted: Wanted, over: int) -> Found:
    if total is None or not wanted.here:
        return Found.without_gradients(loss)
    rows = total.rows if wanted.images else None
    columns = total.columns if wanted.texts else None
    return Found.averaged(loss, rows, columns, total.scale, total.bias, over)

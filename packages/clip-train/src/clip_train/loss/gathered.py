"""The one-sided scheme: every process has all texts for the time of the loss, and computes its images against them.

Shapes: W processes, b pairs on each, B = W * b, D features. A process multiplies (b, D) by (D, B) for the statistics,
again for the gradients, and twice more to apply these: 4 products, where two gathered sides need 6. Texts travel to
all, in their own dtype; their gradients travel home and are summed on the way, in float32. Of the statistics of the
columns each process sends every other its part, 2 * b numbers; they are merged by rank, always in the same order.
"""

from __future__ import annotations

import torch

from clip_core.kernels import parts
from clip_train.loss.exchange import Exchange
from clip_train.loss.share import Found, Share, Wanted, mean_loss

__all__ = ["clip", "siglip"]


def clip(share: Share, exchange: Exchange, wanted: Wanted) -> Found:
    """CLIP's loss of this process's pairs, with gradients."""
    rows, (backend, _), pairs = share.rows, share.choice, len(share.rows)
    own = parts.pair_cosines(rows, share.columns(share.texts))
    columns = share.columns(exchange.gather(share.texts))
    all_own = exchange.gather(own)
    given = rows, columns, all_own, share.scale
    offset = exchange.rank * pairs
    of_rows, of_columns = parts.contrastive_statistics(*given, offset, backend=backend)
    row_loss = parts.log_sum_exp(of_rows, torch.float64)
    column_loss = parts.log_sum_exp(_merged(of_columns, exchange), torch.float64)
    loss = mean_loss(row_loss, column_loss, share)
    if not wanted.anything:
        return Found.without_gradients(loss)
    all_column_losses = exchange.gather(column_loss)
    if not wanted.here:
        return Found.without_gradients(loss)
    found = parts.contrastive_gradients(
        *given,
        row_loss,
        all_column_losses,
        offset,
        for_rows=wanted.images,
        for_columns=wanted.texts,
        backend=backend,
    )
    d_texts = exchange.sum_of_mine(found.columns) if wanted.texts else None
    d_rows = found.rows if wanted.images else None
    return Found.averaged(loss, d_rows, d_texts, found.scale, found.bias, 2 * pairs)


def siglip(share: Share, exchange: Exchange, wanted: Wanted) -> Found:
    """SigLIP's loss of this process's images with all texts, with gradients; there are no statistics to exchange."""
    rows, pairs = share.rows, len(share.rows)
    loss, found = parts.sigmoid_loss(
        rows,
        share.columns(exchange.gather(share.texts)),
        share.scale,
        share.bias,
        exchange.rank * pairs,
        gradients=wanted.here,
        for_rows=wanted.images,
        for_columns=wanted.texts,
        backend=share.choice.backend,
    )
    mean = (loss / pairs).to(share.scale.dtype)
    if not wanted.here:
        return Found.without_gradients(mean)
    d_texts = exchange.sum_of_mine(found.columns) if wanted.texts else None
    d_rows = found.rows if wanted.images else None
    return Found.averaged(mean, d_rows, d_texts, found.scale, found.bias, pairs)


def _merged(of_columns: parts.Statistics, exchange: Exchange) -> parts.Statistics:
    """Of this process's columns over the rows of all processes, from those of all columns over this process's rows."""
    by_owner = torch.stack([part.view(exchange.size, -1) for part in of_columns], dim=1)
    arrived = exchange.to_owners(by_owner)
    whole = parts.Statistics(arrived[0, 0], arrived[0, 1])
    for part in arrived[1:]:
        whole = whole.merged(parts.Statistics(part[0], part[1]))
    return whole

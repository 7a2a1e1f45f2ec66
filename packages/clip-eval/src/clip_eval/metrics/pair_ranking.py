"""Ranks images for captions and captions for images in one pass over blocks of the similarities.

Both directions read the same products, so each is computed once; what the right answers score is known before, to the
last bit. Shapes: N images, M captions, D features. Memory is linear in N + M beside one block. What is not here:
recall.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_core.errors import DataError
from clip_eval.metrics.ranking import Ranks, on_grid, pair_similarities

__all__ = ["PairRanks", "rank_pairs"]

_ROWS = 255  # a byte counts no further, see `_count_columns`
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class PairRanks:
    """Where the right answers of both directions stand."""

    by_text: Ranks
    """M queries: each caption asks for its image."""
    by_image: Ranks
    """One query for each image of `asking`: it asks for any of its captions."""
    asking: Tensor
    """int64: the images that have a caption, in ascending order."""
    top_captions: Tensor
    """int64 (N, up to 3): each image's best captions, best first."""
    top_scores: Tensor
    """float64, their cosine similarities."""


def rank_pairs(
    images: Tensor,
    texts: Tensor,
    image_of_text: Tensor,
    *,
    chunk: int = 2048,
    share: tuple[int, int] = (0, 1),
    combine: Callable[[Tensor], Tensor] | None = None,
) -> PairRanks:
    """Ranks normalised features (N, D) and (M, D); `image_of_text` (M,) int64 names each caption's image.

    chunk: captions in a block. share: `(rank, processes)`, when each of several processes takes every so manieth block
    of images. combine: adds up an int64 or float64 tensor over the processes; every process gets the whole result.

    Raises `DataError` for features that are NaN or infinite: no comparison with them holds, so they would look
    perfect.
    """
    _check(images, texts, image_of_text)
    count = len(images)
    own = pair_similarities(images, image_of_text, texts, torch.arange(len(texts)))
    best = torch.full((count,), -torch.inf, dtype=torch.float64).scatter_reduce(0, image_of_text, own, "amax")
    above_text, beside_text = torch.zeros(2, len(texts), dtype=torch.int64)
    above_image, beside_image = torch.zeros(2, count, dtype=torch.int64)
    shown = min(_SHOWN, len(texts))
    top_captions = torch.zeros(count, shown, dtype=torch.int64)
    top_scores = torch.zeros(count, shown, dtype=torch.float64)
    for start in range(share[0] * _ROWS, count, share[1] * _ROWS):
        rows = slice(start, min(start + _ROWS, count))
        queries, line = on_grid(images[rows]).double(), best[rows, None]
        found: list[tuple[Tensor, Tensor]] = []
        for first in range(0, len(texts), chunk):
            columns = slice(first, min(first + chunk, len(texts)))
            scores = queries @ on_grid(texts[columns]).double().T
            above_image[rows] += _count_rows(scores > line)
            beside_image[rows] += _count_rows(scores == line)
            above_text[columns] += _count_columns(scores > own[columns])
            beside_text[columns] += _count_columns(scores == own[columns])
            top = scores.topk(min(shown, scores.shape[1]), dim=1)
            found.append((top.values, top.indices + first))
        values, order = torch.cat([value for value, _ in found], dim=1).topk(shown, dim=1)
        top_scores[rows] = values
        top_captions[rows] = torch.cat([index for _, index in found], dim=1).gather(1, order)
    if combine is not None:
        above_text, beside_text, above_image, beside_image, top_captions, top_scores = map(
            combine, (above_text, beside_text, above_image, beside_image, top_captions, top_scores)
        )
    right = torch.zeros(count, dtype=torch.int64).index_add_(0, image_of_text, (own == best[image_of_text]).long())
    asking = right.nonzero().flatten()
    return PairRanks(
        Ranks(above_text, beside_text - 1, torch.ones_like(above_text)),
        Ranks(above_image[asking], (beside_image - right)[asking], right[asking]),
        asking,
        top_captions,
        top_scores,
    )


def _check(images: Tensor, texts: Tensor, image_of_text: Tensor) -> None:
    if not len(images) or not len(texts) or len(texts) != len(image_of_text):
        raise ValueError(f"{len(images)} images, {len(texts)} captions, {len(image_of_text)} owners: cannot be ranked")
    if int(image_of_text.min()) < 0 or int(image_of_text.max()) >= len(images):
        raise ValueError(f"image_of_text: places must be from 0 to {len(images) - 1}")
    for features, name in ((images, "images"), (texts, "captions")):
        bad = sum(int((~part.isfinite().all(dim=1)).sum()) for part in torch.split(features, 16384))
        if bad:
            raise DataError(
                f"{bad} of {len(features)} {name} have a feature that is NaN or infinite. Check the weights."
            )


def _count_columns(mask: Tensor) -> Tensor:
    """True values in each column of at most 255 rows: eight columns at once, as the bytes of a long integer."""
    if mask.shape[1] % 8:
        return mask.sum(dim=0)
    return mask.view(torch.int64).sum(dim=0).view(torch.uint8).long()


def _count_rows(mask: Tensor) -> Tensor:
    """True values in each row, as in `_count_columns`."""
    if mask.shape[1] % 8:
        return mask.sum(dim=1)
    words = torch.split(mask.view(torch.int64), 255, dim=1)
    return torch.stack([word.sum(dim=1).view(torch.uint8).view(len(mask), 8).sum(dim=1) for word in words]).sum(dim=0)

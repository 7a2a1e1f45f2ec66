"""A few captions and the pictures that a model finds for them: what a report shows of retrieval by text.

What is not here: the metrics, which are about all captions (`clip_eval.metrics.retrieval`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clip_eval.metrics.ranking import similarities

__all__ = ["example_searches"]

_LOOKED_AT = 256
_ANSWERS = 3


def example_searches(
    images: Tensor, texts: Tensor, owners: Tensor, captions: Sequence[str], places: Sequence[int], *, count: int = 12
) -> list[dict[str, Any]]:
    """Up to `count` captions with their best pictures: half that fail, half that do not, spread over the data set.

    They are chosen among at most 256 captions, evenly spread. Plain types: {"caption", "image" (of the right picture),
    "rank" (its place, from 1; the middle of the tied ones), "answers": [{"image", "similarity"}]}.

    Args:
        images: normalised features (N, D).
        texts: those of the captions (M, D).
        owners: int64 (M,), the row of each caption's image.
        captions: the M texts.
        places: the N images' places in the data set, which stand for them in the result.
    """
    chosen = torch.linspace(0, len(texts) - 1, min(_LOOKED_AT, len(texts))).round().long()
    cosines = similarities(texts[chosen], images)
    own = cosines.gather(1, owners[chosen][:, None])
    ahead, beside = (cosines > own).sum(dim=1), (cosines == own).sum(dim=1) - 1
    ranks = 1 + ahead + beside / 2
    best = cosines.topk(min(_ANSWERS, len(images)), dim=1)
    hits = [row for row in range(len(chosen)) if ranks[row] == 1]
    misses = [row for row in range(len(chosen)) if ranks[row] != 1]
    half = count // 2
    wanted = min(len(misses), max(half, count - len(hits)))
    rows = [*_spread(misses, wanted), *_spread(hits, count - wanted)]
    return [
        {
            "caption": captions[int(chosen[row])],
            "image": int(places[int(owners[chosen[row]])]),
            "rank": float(ranks[row]),
            "answers": [
                {"image": int(places[column]), "similarity": value}
                for column, value in zip(best.indices[row].tolist(), best.values[row].tolist(), strict=True)
            ],
        }
        for row in rows
    ]


def _spread(rows: Sequence[int], count: int) -> list[int]:
    count = min(count, len(rows))
    return [rows[(2 * place + 1) * len(rows) // (2 * count)] for place in range(count)]

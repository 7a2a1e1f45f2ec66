"""Recall@k and median rank, image to text and text to image.

Recall@k is the share of queries with any right answer among the first k (CLIP_benchmark's and the papers' rule; other
libraries call it hit rate). `mean_recall@1`, the mean of both directions, is DataComp's. Shapes: N images, M captions,
D features; memory is linear in N + M.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clip_core.errors import ConfigError
from clip_eval.metrics.intervals import Metric, median, proportion, wilson
from clip_eval.metrics.pair_ranking import rank_pairs
from clip_eval.metrics.ranking import Hits, Ranks

__all__ = ["RetrievalScores", "check_ks", "score_retrieval"]


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """All that is known about one retrieval run."""

    metrics: dict[str, Metric]
    """`{image,text}_retrieval_recall@k` and `{image,text}_retrieval_median_rank`: image retrieval has text queries."""
    image_retrieval_ties: float
    text_retrieval_ties: float
    top_captions: Tensor
    """int64 (N, up to 3): each image's best captions, best first."""
    top_scores: Tensor
    """float64, their cosine similarities."""
    caption_ranks: Tensor
    """float64 (N,): expected rank of each image's best own caption, from 1; infinite for an image without one."""
    outcomes: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Per recall, what each query scored, float32, and its image's place, int64."""
    whole_gallery: tuple[str, ...] = ()
    """The recalls that are 1 whatever the model does, because their k reaches the size of the gallery."""


def check_ks(ks: Sequence[int]) -> tuple[int, ...]:
    """The different `ks` in ascending order; `ConfigError` unless each is a whole number above 0."""
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ConfigError(
                f"recall@{k}: k must be a whole number from 1 on; it says how many answers are looked at."
            )
    return tuple(sorted(set(ks)))


def score_retrieval(
    images: Tensor,
    texts: Tensor,
    image_of_text: Tensor,
    *,
    ks: Sequence[int] = (1, 5, 10),
    allow_no_caption: bool = False,
    chunk: int = 2048,
    share: tuple[int, int] = (0, 1),
    combine: Callable[[Tensor], Tensor] | None = None,
) -> RetrievalScores:
    """Both directions for normalised features (N, D) and (M, D); `image_of_text` (M,) int64 names each caption's image.

    A recall@k whose k reaches the size of the gallery is 1 and is named in `whole_gallery`.

    Args:
        allow_no_caption: an image without a caption asks for none, and stands among the others in image retrieval.
        chunk, share, combine: as for `rank_pairs`.

    Raises:
        ValueError: an image without a caption, unless allowed; sizes that do not fit.
        DataError: features that are not finite.
        ConfigError: a k below 1.
    """
    ks = check_ks(ks)
    if len(texts) != len(image_of_text) or (not allow_no_caption and len(torch.unique(image_of_text)) != len(images)):
        raise ValueError("every image needs a caption, and every caption one image")
    pairs = rank_pairs(images, texts, image_of_text, chunk=chunk, share=share, combine=combine)
    metrics: dict[str, Metric] = {}
    outcomes: dict[str, tuple[Tensor, Tensor]] = {}
    whole = []
    for prefix, ranks, owners, gallery in (
        ("image_retrieval", pairs.by_text, image_of_text, len(images)),
        ("text_retrieval", pairs.by_image, pairs.asking, len(texts)),
    ):
        for k in ks:
            name, hits = f"{prefix}_recall@{k}", ranks.hits(k)
            metrics[name] = proportion(hits.expected, hits.optimistic, hits.pessimistic, owners)
            outcomes[name] = (hits.expected.float(), owners)
            if k >= gallery:
                whole.append(name)
        places = ranks.positions()
        metrics[f"{prefix}_median_rank"] = median(places.expected, places.optimistic, places.pessimistic, owners)
    if 1 in ks:
        metrics["mean_recall@1"], outcomes["mean_recall@1"] = _mean_recall(
            pairs.by_text, pairs.by_image, image_of_text, pairs.asking
        )
    ranks_of_own = torch.full((len(images),), torch.inf, dtype=torch.float64)
    ranks_of_own[pairs.asking] = pairs.by_image.positions().expected
    return RetrievalScores(
        metrics,
        pairs.by_text.tie_share(),
        pairs.by_image.tie_share(),
        pairs.top_captions,
        pairs.top_scores,
        ranks_of_own,
        outcomes,
        tuple(whole),
    )


def _mean_recall(
    by_text: Ranks, by_image: Ranks, image_of_text: Tensor, asking: Tensor
) -> tuple[Metric, tuple[Tensor, Tensor]]:
    """The mean of the two recalls at 1. An image and its captions are one unit of the interval and of the outcomes."""
    one_way, other_way = by_text.hits(1), by_image.hits(1)

    def mean(part: str) -> float:
        return (float(getattr(one_way, part).mean()) + float(getattr(other_way, part).mean())) / 2

    value = mean("expected")
    units = _shares(one_way, other_way, image_of_text, asking)
    # What a unit adds to the mean's error, were the units drawn again.
    error = _shares(_centred(one_way), _centred(other_way), image_of_text, asking)
    count = len(units)
    variance = count / max(1, count - 1) * float((error**2).sum()) / count**2
    queries = len(by_text.equal) + len(by_image.equal)
    effective = min(float(queries), value * (1 - value) / variance) if variance > 0 else float(count)
    low, high = wilson(min(1.0, max(0.0, value)), effective)
    metric = Metric(
        value=value,
        n=queries,
        low=low,
        high=high,
        interval=f"Wilson, queries of both directions clustered by image (effective N {effective:.0f})",
        optimistic=mean("optimistic"),
        pessimistic=mean("pessimistic"),
    )
    return metric, (units.float(), asking)


def _centred(hits: Hits) -> Hits:
    return Hits(hits.expected - hits.expected.mean(), hits.optimistic, hits.pessimistic)


def _shares(one_way: Hits, other_way: Hits, image_of_text: Tensor, asking: Tensor) -> Tensor:
    """One number for each image that has captions; their mean is the mean of the means of both directions."""
    count, captions = len(asking), len(image_of_text)
    sums = torch.zeros(int(asking[-1]) + 1, dtype=torch.float64).index_add_(0, image_of_text, one_way.expected)
    return (sums[asking] * count / captions + other_way.expected) / 2

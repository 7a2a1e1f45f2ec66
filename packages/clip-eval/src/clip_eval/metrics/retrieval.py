"""Recall@k and median rank, image to text and text to image.

Recall@k is the share of queries with any right answer among the first k (CLIP_benchmark's and the papers' rule; other
libraries call it hit rate). Shapes: N images, M captions, D features; memory is chunk x max(N, M), never N x M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_eval.metrics.intervals import Metric, median, proportion
from clip_eval.metrics.ranking import Ranks, rank_rows, similarities

__all__ = ["RetrievalScores", "score_retrieval"]


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
    """float32, their cosine similarities."""
    caption_ranks: Tensor
    """float64 (N,): expected rank of each image's best own caption, from 1."""


def score_retrieval(
    images: Tensor,
    texts: Tensor,
    image_of_text: Tensor,
    *,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int = 1024,
) -> RetrievalScores:
    """Both directions for normalised features (N, D) and (M, D); `image_of_text` (M,) int64 names each caption's image.

    Every image must have a caption. A k beyond the size of the gallery gives 1.
    """
    if len(torch.unique(image_of_text)) != len(images) or len(texts) != len(image_of_text):
        raise ValueError("every image needs a caption, and every caption one image")
    text_ranks, image_ranks, top_captions, top_scores = [], [], [], []
    # Text retrieval: every image asks for captions.
    order = image_of_text.argsort(stable=True)
    owners = image_of_text[order]
    for start in range(0, len(images), chunk):
        stop = min(start + chunk, len(images))
        scores = similarities(images[start:stop], texts)
        first, last = torch.searchsorted(owners, torch.tensor([start, stop])).tolist()
        text_ranks.append(rank_rows(scores, owners[first:last] - start, order[first:last]))
        best = scores.topk(min(3, len(texts)), dim=1)
        top_captions.append(best.indices)
        top_scores.append(best.values)
    # Image retrieval: every caption asks for its image.
    for start in range(0, len(texts), chunk):
        scores = similarities(texts[start : start + chunk], images)
        image_ranks.append(rank_rows(scores, torch.arange(len(scores)), image_of_text[start : start + chunk]))
    by_text, by_image = Ranks.join(image_ranks), Ranks.join(text_ranks)
    metrics = {
        **_metrics("image_retrieval", by_text, ks, image_of_text),
        **_metrics("text_retrieval", by_image, ks, None),
    }
    return RetrievalScores(
        metrics,
        by_text.tie_share(),
        by_image.tie_share(),
        torch.cat(top_captions),
        torch.cat(top_scores),
        by_image.positions().expected,
    )


def _metrics(prefix: str, ranks: Ranks, ks: Sequence[int], clusters: Tensor | None) -> dict[str, Metric]:
    metrics = {}
    for k in ks:
        hits = ranks.hits(k)
        metrics[f"{prefix}_recall@{k}"] = proportion(hits.expected, hits.optimistic, hits.pessimistic, clusters)
    positions = ranks.positions()
    metrics[f"{prefix}_median_rank"] = median(positions.expected, positions.optimistic, positions.pessimistic, clusters)
    return metrics

"""Retrieval both ways: for each image its captions among all captions, for each caption its image among all."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch

from clip_core.errors import DataError
from clip_eval.encoder import Encoder
from clip_eval.features import ImageFeatures
from clip_eval.languages import captions_in
from clip_eval.metrics import RetrievalScores, score_retrieval
from clip_eval.metrics.retrieval import check_ks
from clip_eval.searches import example_searches
from clip_eval.tasks.result import Answer, Outcomes, SampleResult, TaskResult
from clip_eval.wds import WdsDataset

__all__ = ["evaluate_retrieval"]

_log = logging.getLogger(__name__)


def evaluate_retrieval(
    encoder: Encoder,
    dataset: WdsDataset,
    images: ImageFeatures,
    *,
    ks: Sequence[int] = (1, 5, 10),
    language: str | None = None,
) -> TaskResult:
    """Scores a retrieval set. The captions of images that were left out are left out too.

    Captions that are the same text on several images cannot be told apart: they tie, and the bounds show by how much.

    Args:
        ks: how many answers each recall looks at; a k that reaches the size of the gallery gives 1, and the details
            say so.
        language: of the captions, see `clip_eval.languages`; an image without one stays in the gallery and asks for
            none. None is what stands in the shards.

    Raises:
        ConfigError: a k below 1.
        DataError: no caption is left, or there are none in this language.
    """
    check_ks(ks)
    captions = captions_in(dataset, language)
    start = time.perf_counter()
    kept = images.kept.tolist()
    texts = [caption for index in kept for caption in captions[index]]
    if not texts:
        raise DataError(f"{dataset.name}: none of the {len(kept)} images that can be read has a caption.")
    owners = torch.tensor([row for row, index in enumerate(kept) for _ in captions[index]])
    features = encoder.texts(texts)
    encoded = time.perf_counter()
    scores = score_retrieval(
        images.features,
        features,
        owners,
        ks=ks,
        allow_no_caption=language is not None,
        share=(encoder.ranks.rank, encoder.ranks.size),
        combine=lambda part: torch.stack(encoder.ranks.gather(part[None])).sum(dim=0)[0],
    )
    if scores.whole_gallery:
        _log.warning("%s: 1 whatever the model does: %s", dataset.name, ", ".join(scores.whole_gallery))
    details = {
        "images": len(kept),
        "captions": len(texts),
        "distinct_captions": len(set(texts)),
        "shared_captions": _count_shared(texts, owners.tolist()),
        "captions_truncated": encoder.count_truncated(texts),
        "ks": list(check_ks(ks)),
        "whole_gallery": list(scores.whole_gallery),
        "searches": example_searches(images.features, features, owners, texts, kept),
    }
    if language is not None:
        details |= {"language": language, "images_without_caption": sum(not captions[index] for index in kept)}
    return TaskResult(
        task="retrieval",
        metrics=scores.metrics,
        ties={"image_retrieval": scores.image_retrieval_ties, "text_retrieval": scores.text_retrieval_ties},
        details=details,
        samples=_samples(dataset, captions, kept, texts, owners.tolist(), scores),
        outcomes={name: Outcomes(values, images.kept[rows]) for name, (values, rows) in scores.outcomes.items()},
        seconds_texts=encoded - start,
        seconds_metrics=time.perf_counter() - encoded,
    )


def _count_shared(texts: Sequence[str], owners: Sequence[int]) -> int:
    """How many captions have the same text as a caption of another image."""
    images: dict[str, set[int]] = {}
    for text, owner in zip(texts, owners, strict=True):
        images.setdefault(text, set()).add(owner)
    return sum(len(images[text]) > 1 for text in texts)


def _samples(
    dataset: WdsDataset,
    captions: Sequence[tuple[str, ...]],
    kept: list[int],
    texts: list[str],
    owners: list[int],
    scores: RetrievalScores,
) -> list[SampleResult]:
    samples = []
    best = zip(scores.top_captions.tolist(), scores.top_scores.tolist(), strict=True)
    for row, (index, (places, values)) in enumerate(zip(kept, best, strict=True)):
        answers = tuple(
            Answer(texts[place], value, owners[place] == row) for place, value in zip(places, values, strict=True)
        )
        key = dataset.samples[index].key
        samples.append(SampleResult(index, key, captions[index], answers[0].right, answers))
    return samples

"""Retrieval both ways: for each image its captions among all captions, for each caption its image among all."""

from __future__ import annotations

import time

import torch

from clip_eval.encoder import Encoder
from clip_eval.features import ImageFeatures
from clip_eval.metrics import RetrievalScores, score_retrieval
from clip_eval.tasks.result import Answer, SampleResult, TaskResult
from clip_eval.wds import WdsDataset

__all__ = ["evaluate_retrieval"]


def evaluate_retrieval(encoder: Encoder, dataset: WdsDataset, images: ImageFeatures) -> TaskResult:
    """Scores a retrieval set. The captions of images that were left out are left out too."""
    start = time.perf_counter()
    kept = images.kept.tolist()
    texts = [caption for index in kept for caption in dataset.captions[index]]
    owners = torch.tensor([row for row, index in enumerate(kept) for _ in dataset.captions[index]])
    features = encoder.texts(texts)
    encoded = time.perf_counter()
    scores = score_retrieval(images.features, features, owners)
    samples = _samples(dataset, kept, texts, owners.tolist(), scores)
    return TaskResult(
        task="retrieval",
        metrics=scores.metrics,
        ties={"image_retrieval": scores.image_retrieval_ties, "text_retrieval": scores.text_retrieval_ties},
        details={
            "images": len(kept),
            "captions": len(texts),
            "distinct_captions": len(set(texts)),
            "captions_truncated": encoder.count_truncated(texts),
        },
        samples=samples,
        seconds_texts=encoded - start,
        seconds_metrics=time.perf_counter() - encoded,
    )


def _samples(
    dataset: WdsDataset, kept: list[int], texts: list[str], owners: list[int], scores: RetrievalScores
) -> list[SampleResult]:
    samples = []
    best = zip(scores.top_captions.tolist(), scores.top_scores.tolist(), strict=True)
    for row, (index, (places, values)) in enumerate(zip(kept, best, strict=True)):
        answers = tuple(
            Answer(texts[place], value, owners[place] == row) for place, value in zip(places, values, strict=True)
        )
        key = dataset.samples[index].key
        samples.append(SampleResult(index, key, dataset.captions[index], answers[0].right, answers))
    return samples

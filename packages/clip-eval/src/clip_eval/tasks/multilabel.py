"""Zero-shot tagging: how well each class's prompts rank the images that show it (VOC 2007 in CLIP_benchmark)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clip_eval.encoder import Encoder
from clip_eval.features import ImageFeatures
from clip_eval.metrics.average_precision import MultilabelScores, score_multilabel
from clip_eval.metrics.ranking import similarities
from clip_eval.tasks.result import Answer, Outcomes, SampleResult, TaskResult
from clip_eval.tasks.zero_shot import Prompts, prompt_details, resolve_prompts
from clip_eval.wds import WdsDataset

__all__ = ["evaluate_multilabel", "multilabel_details", "presence"]


def evaluate_multilabel(
    encoder: Encoder,
    dataset: WdsDataset,
    images: ImageFeatures,
    *,
    templates: Prompts | None = None,
    classnames: Sequence[str] | None = None,
    allow_duplicate_classnames: bool = False,
) -> TaskResult:
    """Scores a multilabel set by mean average precision.

    Args:
        encoder: encodes the prompts.
        dataset: with the labels that are present in each image, possibly none.
        images: its features.
        templates: replace the data set's own, see `evaluate_zero_shot`.
        classnames: C names that replace the data set's own.
        allow_duplicate_classnames: take two of them that are equal.

    Raises:
        ConfigError: as `evaluate_zero_shot`.
        DataError: a score is NaN.
    """
    start = time.perf_counter()
    names, prompts = resolve_prompts(dataset, templates, classnames, allow_duplicate_classnames)
    weights = encoder.classifier({f"{name} (class {c})": texts for c, (name, texts) in enumerate(prompts)})
    encoded = time.perf_counter()
    present = presence(dataset, images.kept)
    cosines = similarities(images.features, weights.T)
    scores = score_multilabel(cosines, present)
    return TaskResult(
        task="zero_shot_classification",
        metrics={"mean_average_precision": scores.mean},
        ties={"mean_average_precision": scores.tie_share},
        details={
            **prompt_details(dataset, templates, prompts),
            "prompts_truncated": encoder.count_truncated([text for _, texts in prompts for text in texts]),
            **multilabel_details(names, scores, present),
        },
        samples=_samples(dataset, images, cosines, present, names),
        outcomes={"mean_average_precision": Outcomes(scores.shares.float(), images.kept)},
        seconds_texts=encoded - start,
        seconds_metrics=time.perf_counter() - encoded,
    )


def presence(dataset: WdsDataset, kept: Tensor) -> Tensor:
    """Which of the C classes the images at the places `kept` (N,) show, bool (N, C)."""
    shown = torch.zeros(len(kept), len(dataset.classnames), dtype=torch.bool)
    for row, index in enumerate(kept.tolist()):
        shown[row, list(dataset.present[index])] = True
    return shown


def multilabel_details(names: Sequence[str], scores: MultilabelScores, present: Tensor) -> dict[str, Any]:
    """What the record says about single classes."""
    found = [entry.average_precision for entry in scores.per_class if entry.average_precision is not None]
    return {
        "multilabel": True,
        "classes": [
            {
                "name": name,
                "positives": entry.positives,
                "average_precision": entry.average_precision,
                "low": entry.low,
                "high": entry.high,
                "optimistic": entry.optimistic,
                "pessimistic": entry.pessimistic,
            }
            for name, entry in zip(names, scores.per_class, strict=True)
        ],
        "classes_without_positives": len(names) - len(found),
        "mean_over_classes_with_positives": sum(found) / len(found) if found else None,
        "images_without_labels": int((~present.any(dim=1)).sum()),
        # A random order has about the share of positives as its average precision.
        "chance": {"mean_average_precision": float(present.double().mean())},
    }


def _samples(
    dataset: WdsDataset, images: ImageFeatures, cosines: Tensor, present: Tensor, names: Sequence[str]
) -> list[SampleResult]:
    best = cosines.topk(min(3, cosines.shape[1]), dim=1)
    samples = []
    for row, (classes, values) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True)):
        index = int(images.kept[row])
        answers = tuple(
            Answer(names[guess], value, bool(present[row, guess])) for guess, value in zip(classes, values, strict=True)
        )
        truth = tuple(names[label] for label in dataset.present[index])
        samples.append(SampleResult(index, dataset.samples[index].key, truth, answers[0].right, answers))
    return samples

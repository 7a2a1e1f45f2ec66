"""Zero-shot classification: each class is the mean of its prompts' features (Radford et al. 2021, section 3.1.4)."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from clip_core.zero_shot import fill_template
from clip_eval.encoder import Encoder
from clip_eval.features import ImageFeatures
from clip_eval.metrics import classify
from clip_eval.metrics.ranking import similarities
from clip_eval.tasks.result import Answer, SampleResult, TaskResult
from clip_eval.wds import WdsDataset

__all__ = ["evaluate_zero_shot"]


def evaluate_zero_shot(
    encoder: Encoder, dataset: WdsDataset, images: ImageFeatures, *, templates: Sequence[str] | None = None
) -> TaskResult:
    """Scores a classification set; `templates` replaces the data set's own prompts."""
    prompts = tuple(templates or dataset.templates)
    start = time.perf_counter()
    weights = encoder.classifier(dataset.classnames, prompts)
    encoded = time.perf_counter()
    labels = torch.tensor(dataset.labels)[images.kept]
    scores = classify(images.features, weights, labels)
    samples = _samples(dataset, images, weights, labels)
    return TaskResult(
        task="zero_shot_classification",
        metrics=scores.metrics,
        ties={"acc1": scores.tie_share},
        details={
            "templates": list(prompts),
            "prompts_truncated": encoder.count_truncated(
                [fill_template(prompt, name) for name in dataset.classnames for prompt in prompts]
            ),
            "classes": [
                {"name": name, "n": entry.n, "recall": entry.recall, "low": entry.low, "high": entry.high}
                for name, entry in zip(dataset.classnames, scores.per_class, strict=True)
            ],
            "confusion": scores.confusion.tolist(),
        },
        samples=samples,
        seconds_texts=encoded - start,
        seconds_metrics=time.perf_counter() - encoded,
    )


def _samples(
    dataset: WdsDataset, images: ImageFeatures, weights: Tensor, labels: Tensor, chunk: int = 4096
) -> list[SampleResult]:
    samples = []
    for start in range(0, len(labels), chunk):
        best = similarities(images.features[start : start + chunk], weights.T).topk(min(3, weights.shape[1]), dim=1)
        for row, (classes, values) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True), start):
            index, label = int(images.kept[row]), int(labels[row])
            answers = tuple(
                Answer(dataset.classnames[guess], value, guess == label)
                for guess, value in zip(classes, values, strict=True)
            )
            truth = (dataset.classnames[label],)
            samples.append(SampleResult(index, dataset.samples[index].key, truth, answers[0].right, answers))
    return samples

"""Zero-shot classification: each class is the mean of its prompts' features (Radford et al. 2021, section 3.1.4)."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.zero_shot import class_prompts
from clip_eval.encoder import Encoder
from clip_eval.features import ImageFeatures
from clip_eval.metrics import classify
from clip_eval.metrics.calibration import calibrate
from clip_eval.metrics.classification import ClassificationScores
from clip_eval.metrics.ranking import similarities
from clip_eval.tasks.groups import evaluate_groups
from clip_eval.tasks.result import Answer, Outcomes, SampleResult, TaskResult
from clip_eval.wds import WdsDataset, check_class_names

if TYPE_CHECKING:
    from clip_eval.catalogue.entry import Groups

__all__ = ["LARGEST_MATRIX", "Prompts", "evaluate_zero_shot", "prompt_details", "resolve_prompts"]

_log = logging.getLogger(__name__)

LARGEST_MATRIX = 100
"""Up to so many classes the record itself holds the confusion matrix; beyond, its largest entries."""
_CONFUSIONS = 100

Prompts = Sequence[str] | Mapping[str, Sequence[str]]
"""Templates with the placeholder `{c}` for every class, or the prompts of each class in full by its name (CuPL)."""


def evaluate_zero_shot(
    encoder: Encoder,
    dataset: WdsDataset,
    images: ImageFeatures,
    *,
    templates: Prompts | None = None,
    classnames: Sequence[str] | None = None,
    allow_duplicate_classnames: bool = False,
    groups: Groups | None = None,
    main_metric: str = "acc1",
) -> TaskResult:
    """Scores a classification set.

    Another language is other class names and templates on the same images, and a call of its own.

    Args:
        encoder: encodes the prompts.
        dataset: with labels.
        images: its features.
        templates: replace the data set's own: templates, or each class's prompts in full.
        classnames: C names that replace the data set's own, in the order of its labels.
        allow_duplicate_classnames: take two of them that are equal; their images are ties, and the record names them.
        groups: what the metadata beside each label hold, from the catalogue, for the scores by group.
        main_metric: the catalogue's, which says what is measured over the groups.

    Raises:
        ConfigError: another number of names than classes, a template without `{c}`, a class without prompts.
        DataError: scores that are NaN, metadata that do not fit `groups`.
    """
    start = time.perf_counter()
    names, prompts = resolve_prompts(dataset, templates, classnames, allow_duplicate_classnames)
    # Two classes of one name stay two: a mapping needs keys that differ.
    weights = encoder.classifier({f"{name} (class {c})": texts for c, (name, texts) in enumerate(prompts)})
    encoded = time.perf_counter()
    labels = torch.tensor(dataset.labels)[images.kept]
    scale = float(encoder.bundle.model.logit_scale.detach().double().exp())
    scores = classify(images.features, weights, labels, logit_scale=scale)
    metrics = dict(scores.metrics)
    details = _details(dataset, templates, names, prompts, scores)
    details["prompts_truncated"] = encoder.count_truncated([text for _, texts in prompts for text in texts])
    if scores.confidence is not None:
        details["calibration"] = {"logit_scale": scale, **calibrate(scores.confidence).to_json()}
    if groups is not None:
        found, about = evaluate_groups(dataset, images.kept, scores, labels, groups, main_metric)
        metrics.update(found)
        details.update(about)
    outcomes = {f"acc{k}": Outcomes(hits.expected.float(), images.kept) for k, hits in scores.hits.items()}
    outcomes["mean_per_class_recall"] = Outcomes(scores.recall_shares(labels).float(), images.kept)
    return TaskResult(
        task="zero_shot_classification",
        metrics=metrics,
        ties={"acc1": scores.tie_share},
        details=details,
        samples=_samples(dataset, images, weights, labels, names),
        outcomes=outcomes,
        artefacts={"confusion": {"confusion": scores.confusion.int()}},
        seconds_texts=encoded - start,
        seconds_metrics=time.perf_counter() - encoded,
    )


def resolve_prompts(
    dataset: WdsDataset,
    templates: Prompts | None = None,
    classnames: Sequence[str] | None = None,
    allow_duplicate_classnames: bool = False,
) -> tuple[tuple[str, ...], list[tuple[str, list[str]]]]:
    """The names of the C classes, and each with its prompts; for the arguments see `evaluate_zero_shot`.

    A data set may name two classes alike, as ImageNet's does; given names must differ unless its own names do not,
    or the caller allows it.

    Raises:
        ConfigError: as `evaluate_zero_shot`.
        DataError: two classes are given one name.
    """
    names = tuple(dataset.classnames if classnames is None else classnames)
    if isinstance(classnames, str) or len(names) != len(dataset.classnames):
        raise ConfigError(
            f"{dataset.name} has {len(dataset.classnames)} classes, and {len(names)} names were given. Give one name "
            "for each class, in the order of the labels."
        )
    own_twice = len(set(dataset.classnames)) < len(dataset.classnames)
    if classnames is not None:
        check_class_names(names, "The class names given", allow_duplicates=own_twice or allow_duplicate_classnames)
    if isinstance(templates, Mapping):
        given = {name: templates.get(name) for name in names}
        missing = [name for name in given if given[name] is None or isinstance(given[name], str) or not given[name]]
        if missing:
            raise ConfigError(
                f"No list of prompts for {len(missing)} of {len(names)} classes of {dataset.name}: "
                f"{', '.join(map(repr, missing[:5]))}. Prompts in full are needed for every class, by its name."
            )
        return names, [(name, list(templates[name])) for name in names]
    return names, list(zip(names, class_prompts(names, templates or dataset.templates), strict=True))


def prompt_details(
    dataset: WdsDataset, templates: Prompts | None, prompts: list[tuple[str, list[str]]]
) -> dict[str, Any]:
    """What the record says about the prompts; the hash covers every class's name and prompts in full."""
    in_full = isinstance(templates, Mapping)
    canonical = json.dumps(prompts, ensure_ascii=False, separators=(",", ":"))
    return {
        "templates": None if in_full else list(templates or dataset.templates),
        "prompts": {
            "per_class": in_full,
            "count": sum(len(texts) for _, texts in prompts),
            "sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        },
    }


def _details(
    dataset: WdsDataset,
    templates: Prompts | None,
    names: tuple[str, ...],
    prompts: list[tuple[str, list[str]]],
    scores: ClassificationScores,
) -> dict[str, Any]:
    classes = len(names)
    # CLIP_benchmark's accuracy@5 of fewer classes is NaN; here it is absent, and so is its chance level.
    chance = {f"acc{k}": k / classes for k in scores.hits} | {"mean_per_class_recall": 1 / classes}
    return {
        **prompt_details(dataset, templates, prompts),
        "classes": [
            {"name": name, "n": entry.n, "recall": entry.recall, "low": entry.low, "high": entry.high}
            for name, entry in zip(names, scores.per_class, strict=True)
        ],
        "chance": chance,
        "duplicate_classnames": _duplicates(names, scores),
        **_confusions(names, scores.confusion),
    }


def _duplicates(names: tuple[str, ...], scores: ClassificationScores) -> list[dict[str, Any]]:
    """Names that several classes share: no model can tell them apart, so their images are ties."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    found: list[dict[str, Any]] = [
        {"name": name, "classes": shared, "images": sum(scores.per_class[place].n for place in shared)}
        for name, shared in places.items()
        if len(shared) > 1
    ]
    if found:
        _log.warning(
            "%d class name(s) stand for several classes, first %r: %d images are decided by lot, see the tie bounds",
            len(found),
            found[0]["name"],
            sum(entry["images"] for entry in found),
        )
    return found


def _confusions(names: tuple[str, ...], confusion: Tensor) -> dict[str, Any]:
    """The whole matrix where people may want to read it, and the most frequent mistakes always."""
    wrong = confusion.clone()
    wrong.diagonal().zero_()
    best = wrong.flatten().topk(min(_CONFUSIONS, wrong.numel()))
    totals = confusion.sum(dim=1).tolist()
    mistakes = [
        {
            "truth": names[place // len(names)],
            "guess": names[place % len(names)],
            "count": count,
            "of": totals[place // len(names)],
        }
        for count, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if count
    ]
    whole = {"confusion": confusion.tolist()} if len(names) <= LARGEST_MATRIX else {}
    return {**whole, "confusions": mistakes}


def _samples(
    dataset: WdsDataset,
    images: ImageFeatures,
    weights: Tensor,
    labels: Tensor,
    names: tuple[str, ...],
    chunk: int = 4096,
) -> list[SampleResult]:
    samples = []
    for start in range(0, len(labels), chunk):
        best = similarities(images.features[start : start + chunk], weights.T).topk(min(3, weights.shape[1]), dim=1)
        for row, (classes, values) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True), start):
            index, label = int(images.kept[row]), int(labels[row])
            answers = tuple(
                Answer(names[guess], value, guess == label) for guess, value in zip(classes, values, strict=True)
            )
            truth = (names[label],)
            samples.append(SampleResult(index, dataset.samples[index].key, truth, answers[0].right, answers))
    return samples

"""Linear probe: logistic regression on frozen features, from all training images or from a few of each class.

The decay is chosen on validation images: the data set's own, or a fifth of the training images of every class; with few
shots, the rest of the training images. Then the probe is fitted again, on training and validation images together, and
with few shots on the shots alone. Why the numbers differ from CLIP_benchmark's stands in `clip_eval.probe`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from clip_core.errors import ConfigError
from clip_eval.encoder import Encoder
from clip_eval.features import ImageFeatures
from clip_eval.metrics import score_classification
from clip_eval.metrics.average_precision import score_multilabel
from clip_eval.metrics.draws import over_draws
from clip_eval.metrics.intervals import Metric
from clip_eval.probe.running import Run, Split, run_probe
from clip_eval.tasks.multilabel import multilabel_details, presence
from clip_eval.tasks.result import Answer, Outcomes, SampleResult, TaskResult
from clip_eval.wds import WdsDataset

__all__ = ["evaluate_linear_probe"]


def evaluate_linear_probe(
    encoder: Encoder,
    dataset: WdsDataset,
    images: ImageFeatures,
    *,
    train: WdsDataset,
    train_images: ImageFeatures,
    validation: WdsDataset | None = None,
    validation_images: ImageFeatures | None = None,
    fewshot_k: int | None = None,
    seeds: Sequence[int] = (0,),
    validation_share: float = 0.2,
    weight_decay: float | None = None,
) -> TaskResult:
    """Scores `dataset`, the test split, with probes on the features of `train`.

    Args:
        encoder: gives the device on which to compute.
        dataset: the test split, classification or multilabel.
        images: its features.
        train: the split to learn from.
        train_images: its features.
        validation: the split to choose the decay on; without it a part of `train` is kept back.
        validation_images: its features.
        fewshot_k: images of each class to learn from; None for all. Classification only.
        seeds: one probe each, for what is drawn by lot: the shots, and the images kept back. Where nothing is drawn,
            only the first counts.
        validation_share: of each class's training images, kept back where there is no validation split.
        weight_decay: this instead of a choice; nothing is kept back then.

    Raises:
        ConfigError: options that do not go together, or splits of different classes.
        DataError: a class has fewer than `fewshot_k` images, or nothing is left to choose the decay on.
    """
    start = time.perf_counter()
    several = dataset.kind == "multilabel"
    _check(dataset, train, validation, several, fewshot_k, seeds, weight_decay)
    if not 0 < validation_share < 1:
        raise ConfigError(f"validation_share is {validation_share}; allowed: between 0 and 1, both left out.")
    learn = _part(train, train_images)
    own = None if validation is None or validation_images is None else _part(validation, validation_images)
    test = _part(dataset, images)
    device = encoder.bundle.model.logit_scale.device
    device = device if device.type == "cuda" else torch.device("cpu")
    drawn = fewshot_k is not None or (own is None and weight_decay is None)
    runs = [
        run_probe(seed, learn, own, test, dataset.classnames, fewshot_k, weight_decay, validation_share, device)
        for seed in (seeds if drawn else seeds[:1])
    ]
    result = _score_several(dataset, images, runs, test) if several else _score(dataset, images, runs, test)
    metrics, ties, details, samples, outcomes = result
    return TaskResult(
        task="linear_probe",
        metrics=metrics,
        ties=ties,
        details={
            "fewshot_k": fewshot_k,
            "normalized": True,
            "solver": "L-BFGS to the optimum; bias not decayed",
            "train_images": len(learn.features),
            "validation": "given" if own else "none" if weight_decay is not None else "drawn from the training images",
            "weight_decay": runs[0].probe.decay,
            "runs": [_describe(run, dataset.classnames) for run in runs],
            **details,
        },
        samples=samples,
        outcomes=outcomes,
        artefacts={
            "probe" if len(runs) == 1 else f"probe_seed{run.seed}": {
                "weight": run.probe.weight.float(),
                "bias": run.probe.bias.float(),
                "classes": run.known,
            }
            for run in runs
        },
        seconds_texts=0.0,
        seconds_metrics=time.perf_counter() - start,
    )


def _check(
    dataset: WdsDataset,
    train: WdsDataset,
    validation: WdsDataset | None,
    several: bool,
    fewshot_k: int | None,
    seeds: Sequence[int],
    weight_decay: float | None,
) -> None:
    if dataset.kind not in ("classification", "multilabel"):
        raise ConfigError(f"{dataset.name} is a {dataset.kind} set; a linear probe needs classes.")
    for split in (train, *([] if validation is None else [validation])):
        if split.kind != dataset.kind or split.classnames != dataset.classnames:
            raise ConfigError(f"The splits {split.split!r} and {dataset.split!r} of {dataset.name} have other classes.")
    if several and fewshot_k is not None:
        raise ConfigError("Few shots of each class are not defined where an image shows several; leave out fewshot_k.")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds are {list(seeds)}; allowed: one or more different numbers.")
    if weight_decay is not None and not weight_decay > 0:
        raise ConfigError(
            f"weight_decay is {weight_decay}; allowed: above 0, or None to choose it on validation images."
        )


def _part(dataset: WdsDataset, images: ImageFeatures) -> Split:
    several = dataset.kind == "multilabel"
    targets = presence(dataset, images.kept) if several else torch.tensor(dataset.labels)[images.kept]
    return Split(images.features, targets, [dataset.samples[index].key for index in images.kept.tolist()])


_Scored = tuple[dict[str, Metric], dict[str, float], dict[str, Any], list[SampleResult], dict[str, Outcomes]]


def _score(dataset: WdsDataset, images: ImageFeatures, runs: list[Run], test: Split) -> _Scored:
    found = [score_classification(run.scores, test.targets) for run in runs]
    ks = [k for k in (1, 5) if k <= min(len(run.known) for run in runs)]
    names = [f"acc{k}" for k in ks] + ["mean_per_class_recall"]
    metrics = {f"lp_{name}": over_draws([scores.metrics[name] for scores in found]) for name in names}
    outcomes = {
        f"lp_acc{k}": Outcomes(
            torch.stack([scores.hits[k].expected for scores in found]).mean(dim=0).float(), images.kept
        )
        for k in ks
    }
    shares = torch.stack([scores.recall_shares(test.targets) for scores in found]).mean(dim=0)
    outcomes["lp_mean_per_class_recall"] = Outcomes(shares.float(), images.kept)
    first = found[0]
    details = {
        "spread": {
            name: _spread([scores.metrics[name.removeprefix("lp_")].value for scores in found]) for name in metrics
        },
        "shown_seed": runs[0].seed,
        "classes": [
            {"name": name, "n": entry.n, "recall": entry.recall, "low": entry.low, "high": entry.high}
            for name, entry in zip(dataset.classnames, first.per_class, strict=True)
        ],
        "chance": {f"lp_acc{k}": k / len(dataset.classnames) for k in ks}
        | {"lp_mean_per_class_recall": 1 / len(dataset.classnames)},
    }
    ties = {"lp_acc1": statistics.fmean(scores.tie_share for scores in found)}
    return metrics, ties, details, _samples(dataset, images, runs[0].scores, test.targets), outcomes


def _score_several(dataset: WdsDataset, images: ImageFeatures, runs: list[Run], test: Split) -> _Scored:
    # A class that could not be learnt scores the same for every image: its ties are counted like any others.
    found = [score_multilabel(run.scores, test.targets) for run in runs]
    name = "lp_mean_average_precision"
    shares = torch.stack([scores.shares for scores in found]).mean(dim=0)
    details = {
        "spread": {name: _spread([scores.mean.value for scores in found])},
        "shown_seed": runs[0].seed,
        **multilabel_details(dataset.classnames, found[0], test.targets),
    }
    return (
        {name: over_draws([scores.mean for scores in found])},
        {name: statistics.fmean(scores.tie_share for scores in found)},
        details,
        _samples(dataset, images, runs[0].scores, test.targets),
        {name: Outcomes(shares.float(), images.kept)},
    )


def _spread(values: list[float]) -> dict[str, Any]:
    """How far the seeds lie apart; the standard deviation is None for a single one."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "standard_deviation": deviation, "values": values}


def _describe(run: Run, classnames: Sequence[str]) -> dict[str, Any]:
    known = set(run.known.tolist())
    return {
        "seed": run.seed,
        "weight_decay": run.probe.decay,
        "learnt_from": run.learnt_from,
        "validated_on": run.validated_on,
        "steps": run.probe.steps,
        "converged": run.probe.converged,
        "classes_without_examples": [name for place, name in enumerate(classnames) if place not in known],
        "at_edge_of_grid": run.sweep.at_edge if run.sweep is not None else None,
        "sweep": [asdict(trial) for trial in run.sweep.trials] if run.sweep is not None else None,
    }


def _samples(dataset: WdsDataset, images: ImageFeatures, scores: Tensor, targets: Tensor) -> list[SampleResult]:
    """One line per image; the `similarity` of an answer is its probability."""
    several = targets.ndim == 2
    chances = scores.sigmoid() if several else scores.softmax(dim=1)
    best = chances.topk(min(3, scores.shape[1]), dim=1)
    samples = []
    for row, (classes, values) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True)):
        index = int(images.kept[row])
        labels = dataset.present[index] if several else (dataset.labels[index],)
        answers = tuple(
            Answer(dataset.classnames[guess], value, guess in labels)
            for guess, value in zip(classes, values, strict=True)
        )
        truth = tuple(dataset.classnames[label] for label in labels)
        samples.append(SampleResult(index, dataset.samples[index].key, truth, answers[0].right, answers))
    return samples

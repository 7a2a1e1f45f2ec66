"""Scores by group of images, from the metadata that WILDS' and the fairness sets carry beside each label.

The names of the numbers are DataComp's: `acc_wg` and `acc_avg`, `acc_worst_region`, `acc_top5_wg`, `F1-macro_all`.
`acc_worst_region` leaves the region "Other" out, as WILDS does. DataComp's evaluator means to, but looks for that word
among names that are bare numbers, so its published figures count the handful of images in it; that number is here as
`acc_worst_region_all`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clip_core.errors import ConfigError, DataError
from clip_eval.metrics import Metric
from clip_eval.metrics.classification import ClassificationScores, macro_f1
from clip_eval.metrics.groups import group_numbers, score_groups, worst_group
from clip_eval.metrics.intervals import proportion
from clip_eval.metrics.ranking import Hits
from clip_eval.wds import WdsDataset

if TYPE_CHECKING:
    from clip_eval.catalogue.entry import Groups

__all__ = ["evaluate_groups", "grouped_accuracy"]

_LEFT_OUT = "Other"


def evaluate_groups(
    dataset: WdsDataset, kept: Tensor, scores: ClassificationScores, labels: Tensor, groups: Groups, main_metric: str
) -> tuple[dict[str, Metric], dict[str, Any]]:
    """The numbers over groups, and for the record's details the groups by way of grouping, and which was the worst.

    kept (N,): the places in the data set of the images that were scored; labels (N,). main_metric: the catalogue's,
    which says what is measured: macro F1 over the classes (`F1-macro_all`), accuracy@5 in groups (`acc_top5_...`), or
    accuracy. Raises `DataError` where the metadata does not fit, `ConfigError` where there are fewer than 5 classes.
    """
    if dataset.objective:
        return _faces(dataset, kept, scores, groups)
    if main_metric.startswith("F1-macro"):
        return {
            "acc_avg": scores.metrics["acc1"],
            "recall-macro_all": scores.metrics["mean_per_class_recall"],
            "F1-macro_all": macro_f1(scores, labels),
        }, {}
    name, k = ("acc_top5", 5) if main_metric.startswith("acc_top5") else ("acc", 1)
    if k not in scores.hits:
        raise ConfigError(f"{main_metric} needs 5 classes or more, and {dataset.name} has {len(scores.per_class)}.")
    metrics: dict[str, Metric] = {f"{name}_avg": scores.metrics[f"acc{k}"]}
    tables, worst = {}, {}
    for by in groups.by:
        suffix = "wg" if len(groups.by) == 1 else "worst_" + "_".join(by)
        key = f"{name}_{suffix}"
        found, tables["_".join(by)], worst[key] = grouped_accuracy(
            dataset, kept, scores.hits[k], groups, by, name=name, worst=key
        )
        metrics.update(found)
    return metrics, {"groups": tables, "worst_groups": worst}


def _faces(
    dataset: WdsDataset, kept: Tensor, scores: ClassificationScores, groups: Groups
) -> tuple[dict[str, Metric], dict[str, Any]]:
    """FairFace and UTKFace: one objective, in groups of white and other people; gender also by gender and race.

    As in DataComp, race counts as right when the answer is on the right side of white or not. There the first of tied
    answers counts.
    """
    objective, hits = dataset.objective, scores.hits[1]
    if objective == "race":
        white = groups.values["race"].index("white")
        truth = _columns(dataset, groups, ("race_binary",))[kept, 0]
        right = ((scores.predictions != white).long() == truth).double()
        hits = Hits(right, right, right)
    name = f"acc_{objective}"
    metrics = {f"{name}_avg": proportion(hits.expected, hits.optimistic, hits.pessimistic)}
    ways: list[tuple[str, tuple[str, ...]]] = [(name, ("race_binary",))]
    if objective == "gender":
        metrics[f"{name}_x_avg"] = metrics[f"{name}_avg"]
        ways.append((f"{name}_x", ("gender", "race")))
    tables, worst = {}, {}
    for key, by in ways:
        found, tables["_".join(by)], worst[f"{key}_wg"] = grouped_accuracy(
            dataset, kept, hits, groups, by, name=key, worst=f"{key}_wg"
        )
        metrics.update(found)
    return metrics, {"groups": tables, "worst_groups": worst}


def grouped_accuracy(
    dataset: WdsDataset, kept: Tensor, hits: Hits, groups: Groups, by: tuple[str, ...], *, name: str, worst: str
) -> tuple[dict[str, Metric], list[dict[str, Any]], dict[str, Any]]:
    """Groups by the fields `by`: the worst, under the name `worst`, and as plain types all of them and its name."""
    columns = _columns(dataset, groups, by)[kept]
    numbers, values = group_numbers(columns)
    scores = score_groups(hits, numbers)
    titles = [_title(groups, by, row) for row in values.tolist()]
    left_out = [group for group, title in enumerate(titles) if title == _LEFT_OUT]
    metric, group = worst_group(scores, left_out=left_out)
    metrics = {worst: metric}
    if left_out:
        metrics[f"{worst}_all"] = worst_group(scores)[0]
    table = [
        {
            # WILDS writes the last field first.
            "key": f"{name}_" + "_".join(f"{f}:{v}" for f, v in reversed(list(zip(by, row, strict=True)))),
            "name": title,
            "n": score.score.n,
            "value": score.score.value,
            "low": score.score.low,
            "high": score.score.high,
        }
        for title, row, score in zip(titles, values.tolist(), scores, strict=True)
    ]
    return metrics, table, {"name": titles[group], "left_out": [titles[place] for place in left_out]}


def _columns(dataset: WdsDataset, groups: Groups, by: tuple[str, ...]) -> Tensor:
    """The fields of all images, int64 (samples, len(by))."""
    if not dataset.metadata:
        raise DataError(f"{dataset.name}: its samples have no metadata (.npy), so no groups {', '.join(by)}.")
    widths = {len(row) for row in dataset.metadata}
    if widths != {len(groups.fields)}:
        raise DataError(
            f"{dataset.name}: its metadata have {sorted(widths)} numbers per image, expected {len(groups.fields)}: "
            f"{', '.join(groups.fields)}."
        )
    unknown = [field for field in by if field not in groups.fields]
    if unknown:
        raise ConfigError(f"Unknown fields {unknown}; {dataset.name} has {', '.join(groups.fields)}.")
    columns = torch.tensor(dataset.metadata, dtype=torch.float64)[:, [groups.fields.index(field) for field in by]]
    whole = columns.long()
    if not torch.equal(whole.double(), columns) or bool((whole < 0).any()):
        raise DataError(f"{dataset.name}: {', '.join(by)} must be whole numbers from 0, the numbers of groups.")
    return whole


def _title(groups: Groups, by: tuple[str, ...], row: list[int]) -> str:
    """What people call a group."""
    parts = []
    for field, value in zip(by, row, strict=True):
        names = groups.values.get(field, ())
        parts.append(names[value] if value < len(names) else f"{field} {value}")
    return ", ".join(parts)

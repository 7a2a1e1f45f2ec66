"""Evaluation records of clip-eval as rows of a table, and as the results that the Hub's metadata has.

A record counts only for the weights that it was measured with: it states their hash, and here it is compared. What this
room leaves out: how the numbers were made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_core.convert.checkpoint import read_json
from clip_core.errors import ConfigError, DataError

__all__ = ["Row", "read_curves", "read_rows", "weights_sha256"]

_SCHEMA = 1
_TASKS = {
    "zero_shot_classification": "zero-shot classification",
    "retrieval": "retrieval",
    "linear_probe": "linear probe",
    "caption_choice": "choice among captions",
    "association": "association",
    "captioning": "captioning",
}
# Name in a record -> (name in the table, whether it is a share).
_METRICS = {
    "acc1": ("accuracy", True),
    "acc5": ("accuracy in the first five", True),
    "mean_per_class_recall": ("mean recall of the classes", True),
    "mean_average_precision": ("mean average precision", True),
    "expected_calibration_error": ("expected calibration error", True),
    "lp_acc1": ("accuracy of the probe", True),
    "lp_acc5": ("accuracy of the probe in the first five", True),
    "lp_mean_average_precision": ("mean average precision of the probe", True),
    "lp_mean_per_class_recall": ("mean recall of the classes of the probe", True),
    "acc": ("both ways right", True),
    "image_acc": ("right image for the caption", True),
    "text_acc": ("right caption for the image", True),
    "acc_avg": ("accuracy", True),
    "acc_wg": ("accuracy of the worst group", True),
    "acc_worst_region": ("accuracy of the worst region", True),
    "acc_top5_avg": ("accuracy in the first five", True),
    "acc_top5_wg": ("accuracy in the first five of the worst group", True),
    "F1-macro_all": ("F1, mean over the classes", True),
    "recall-macro_all": ("recall, mean over the classes", True),
    "mean_recall@1": ("mean of both recalls@1", True),
    "avg_jaccard_score": ("Jaccard index, mean", True),
}
_WAYS = {"image_retrieval": "text → image", "text_retrieval": "image → text"}
_RANKS = {"mean_rank": "mean rank", "median_rank": "median rank"}
# Of a data set these are drawn over a run, the first that a record has and those that go with it.
_HEADLINES = (
    ("acc1",),
    ("image_retrieval_recall@1", "text_retrieval_recall@1"),
    ("mean_average_precision",),
    ("lp_acc1",),
    ("acc",),
    ("text_acc",),
    ("avg_jaccard_score",),
)


def _described(metric: str, low: float, high: float) -> tuple[str, bool]:
    """(in words, whether it is a share) of a metric's name."""
    if metric in _METRICS:
        return _METRICS[metric]
    way, _, what = metric.replace("_retrieval_", "_retrieval ").partition(" ")
    if way in _WAYS and what:
        return f"{_WAYS[way]}, {_RANKS.get(what, what)}", what not in _RANKS
    first = re.fullmatch(r"(lp_)?acc(\d+)", metric)
    if first:
        return f"accuracy {'of the probe ' if first[1] else ''}in the first {first[2]}", True
    if re.fullmatch(r"CIDEr|SPICE|METEOR|ROUGE_L|Bleu_\d", metric):  # scores of captions; some go beyond 1
        return metric, False
    if metric.startswith("jaccard_score_"):
        return f"Jaccard index, {metric.removeprefix('jaccard_score_').replace('-', ' to ')} candidates", True
    return metric.replace("_", " "), 0 <= low <= high <= 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One number on one data set."""

    dataset: str
    split: str
    task: str
    """As in the record: "zero_shot_classification", "retrieval"."""
    metric: str
    """As in the record: "acc1"."""
    value: float
    low: float
    high: float
    count: int
    """How many queries it is of."""
    about: Mapping[str, Any]
    """What the data set says of itself."""
    versions: Mapping[str, str]
    device: str
    precision: str
    measured_on: str = ""
    """What makes it comparable with another number of the same name: the hashes of shards and prompts."""

    @property
    def is_share(self) -> bool:
        """Whether `value` lies between 0 and 1 and is shown in per cent."""
        return _described(self.metric, self.low, self.high)[1]

    @property
    def metric_name(self) -> str:
        """The metric in words."""
        return _described(self.metric, self.low, self.high)[0]

    @property
    def task_name(self) -> str:
        """The task in words."""
        return _TASKS.get(self.task, self.task.replace("_", " "))


def read_rows(paths: Sequence[Path], weights: Mapping[str, Tensor]) -> list[Row]:
    """Every number of the records in `paths`, in their order.

    Args:
        paths: JSON files that `clip-eval run` wrote.
        weights: the model's state as it is published.

    Raises:
        DataError: a file is no record, is damaged, or was measured with other weights.
    """
    rows: list[Row] = []
    for path in paths:
        found, precision, stated = _read(path)
        rows += found
        if weights_sha256(weights, precision) != stated:
            raise DataError(
                f"{path} was measured with other weights ({stated[:12]}...) than these. Evaluate these with "
                "`clip-eval run`, or move the file away."
            )
    return rows


def read_curves(epochs: Mapping[int, Sequence[Path]]) -> dict[str, list[tuple[int, Row]]]:
    """The chief numbers over a run: what it is, "digits: accuracy" -> (epoch, number), as far as they compare.

    Args:
        epochs: epoch -> records, as `folder.find_epochs` gives them. They are of weights that are not published, so
            their hashes are compared with nothing.

    Raises:
        DataError: a file is no record, or is damaged.
    """
    curves: dict[tuple[str, str], list[tuple[int, Row]]] = {}
    for epoch, paths in epochs.items():
        for path in paths:
            held = {row.metric: row for row in _read(path)[0]}
            names = next((names for names in _HEADLINES if names[0] in held), ())
            for row in (held[name] for name in names if name in held):
                # Another split, or other shards or prompts, are another measurement.
                label = f"{row.dataset}: {row.metric_name}"
                curves.setdefault((label, f"{row.split} {row.task} {row.measured_on}"), []).append((epoch, row))
    several = Counter(label for label, _ in curves)
    return {
        label if several[label] == 1 else f"{label} ({place})": points
        for place, ((label, _), points) in enumerate(curves.items(), 1)
    }


def _read(path: Path) -> tuple[list[Row], str, str]:
    """(numbers, precision, hash of the weights) of the record in `path`."""
    try:
        record = read_json(path)
    except ConfigError as error:
        raise DataError(str(error)) from error
    if record.get("schema") != _SCHEMA or "metrics" not in record:
        raise DataError(f"{path} is no evaluation record of schema {_SCHEMA}; move other files out of the folder.")
    try:
        return _rows(record), record["precision"]["model"], record["model"]["weights_sha256"]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is a damaged evaluation record: {type(error).__name__} {error}.") from error


def _rows(record: Mapping[str, Any]) -> list[Row]:
    dataset = record["dataset"]
    prompts = record.get("prompts") or {}
    return [
        Row(
            dataset=dataset["name"],
            split=dataset["split"],
            task=record["task"],
            metric=name,
            value=float(metric["value"]),
            low=float(metric["low"]),
            high=float(metric["high"]),
            count=int(metric["n"]),
            about=dataset.get("about") or {},
            versions=record.get("versions", {}),
            device=str(record.get("device", "")),
            precision=record["precision"]["model"],
            measured_on=f"{dataset.get('shards_sha256', '')} {prompts.get('id', '')}",
        )
        for name, metric in record["metrics"].items()
    ]


def weights_sha256(weights: Mapping[str, Tensor], precision: str = "float32") -> str:
    """The hash that clip-eval gives a model of these weights when it runs in `precision` ("float32", "bfloat16")."""
    dtype = getattr(torch, precision, None)
    if not isinstance(dtype, torch.dtype):
        raise DataError(f"An evaluation record has the precision {precision!r}; allowed: names of torch's dtypes.")
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu()
        if value.is_floating_point():
            value = value.to(torch.float32 if name in ("logit_scale", "logit_bias") else dtype)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

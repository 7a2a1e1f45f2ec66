"""Evaluation records of clip-eval as rows of a table, and as the results that the Hub's metadata has.

A record counts only for the weights that it was measured with: it states their hash, and here it is compared. What this
room leaves out: how the numbers were made.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_core.convert.checkpoint import read_json
from clip_core.errors import ConfigError, DataError

__all__ = ["Row", "read_rows", "weights_sha256"]

_SCHEMA = 1
_TASKS = {"zero_shot_classification": "zero-shot classification", "retrieval": "retrieval"}
# Name in a record -> (name in the table, whether it is a share).
_METRICS = {
    "acc1": ("accuracy", True),
    "acc5": ("accuracy in the first five", True),
    "mean_per_class_recall": ("mean recall of the classes", True),
    "image_retrieval_recall@1": ("text → image, recall@1", True),
    "image_retrieval_recall@5": ("text → image, recall@5", True),
    "image_retrieval_recall@10": ("text → image, recall@10", True),
    "image_retrieval_median_rank": ("text → image, median rank", False),
    "text_retrieval_recall@1": ("image → text, recall@1", True),
    "text_retrieval_recall@5": ("image → text, recall@5", True),
    "text_retrieval_recall@10": ("image → text, recall@10", True),
    "text_retrieval_median_rank": ("image → text, median rank", False),
}


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

    @property
    def is_share(self) -> bool:
        """Whether `value` lies between 0 and 1 and is shown in per cent."""
        return _METRICS.get(self.metric, ("", 0 <= self.low <= self.high <= 1))[1]

    @property
    def metric_name(self) -> str:
        """The metric in words."""
        return _METRICS.get(self.metric, (self.metric.replace("_", " "),))[0]

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
        try:
            record = read_json(path)
        except ConfigError as error:
            raise DataError(str(error)) from error
        if record.get("schema") != _SCHEMA or "metrics" not in record:
            raise DataError(f"{path} is no evaluation record of schema {_SCHEMA}; move other files out of the folder.")
        try:
            rows += _rows(record)
            precision, stated = record["precision"]["model"], record["model"]["weights_sha256"]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is a damaged evaluation record: {type(error).__name__} {error}.") from error
        if weights_sha256(weights, precision) != stated:
            raise DataError(
                f"{path} was measured with other weights ({stated[:12]}...) than these. Evaluate these with "
                "`clip-eval run`, or move the file away."
            )
    return rows


def _rows(record: Mapping[str, Any]) -> list[Row]:
    dataset = record["dataset"]
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

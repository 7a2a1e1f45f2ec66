"""One form for results of every origin, ours and the peers', so that tables, comparisons and pages take them alike.

A row is one model on one task of one data set; its data set bears the catalogue's name where the catalogue knows it.
What is not here: the peers' files (`peers`), finding out what kind a file is (`readers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clip_eval.catalogue import Entry, lookup
from clip_eval.metrics import wilson
from clip_eval.records.reading import SavedRecord

__all__ = ["Row", "Score", "Source", "is_share", "lower_is_better", "main_metrics", "row_of", "score_of", "split_model"]

Source = Literal["clip-eval", "CLIP_benchmark", "DataComp", "OpenCLIP"]
"""Who computed it, or whose layout the file has."""

_LOWER = ("rank", "loss", "error", "brier", "nll")
_NOT_SHARES = ("rank", "loss", "nll", "CIDEr", "count")
_MAIN = {
    "zero_shot_classification": ("acc1", "mean_average_precision"),
    "retrieval": ("image_retrieval_recall@1", "text_retrieval_recall@1"),
    "linear_probe": ("lp_acc1", "lp_mean_average_precision"),
    "caption_choice": ("acc", "text_acc"),
    "captioning": ("CIDEr",),
    "association": ("jaccard_score_10-12", "avg_jaccard_score"),
}
# CLIP_benchmark's default is k = 5 alone.
_RECALL_AT_5 = ("image_retrieval_recall@5", "text_retrieval_recall@5")
_PER_IMAGE = ("acc1", "acc5", "lp_acc1", "lp_acc5", "acc", "text_acc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One number; what is not known about it is None."""

    value: float
    n: int | None = None
    """How many queries it is of."""
    low: float | None = None
    high: float | None = None
    interval: str = ""
    """How the 95 % limits were made; empty where there are none."""
    optimistic: float | None = None
    pessimistic: float | None = None
    """Bounds that ties leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one model scored on one task of one data set."""

    dataset: str
    split: str
    task: str
    """As in our records: "zero_shot_classification", "retrieval" ..."""
    language: str | None
    model: str
    """Architecture, or whatever the model is called."""
    pretrained: str
    """Its tag; empty where the name has none."""
    metrics: Mapping[str, Score]
    source: Source
    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What else decides the result and is known: prompts, few-shot counts, seeds."""
    record: SavedRecord | None = None
    """The record it was made of, if it is ours."""

    @property
    def model_name(self) -> str:
        """`model:pretrained`, or the model alone."""
        return f"{self.model}:{self.pretrained}" if self.pretrained else self.model

    @property
    def entry(self) -> Entry | None:
        """The data set's row in the catalogue."""
        return lookup(self.dataset)


def row_of(record: SavedRecord) -> Row:
    """A record of ours as a row."""
    known = lookup(record.dataset)
    model, pretrained = split_model(record.model)
    return Row(
        dataset=known.name if known else record.dataset,
        split=record.split,
        task=record.task,
        language=record.language,
        model=model,
        pretrained=pretrained,
        metrics={
            name: Score(
                value=metric.value,
                n=metric.n,
                low=metric.low,
                high=metric.high,
                interval=metric.interval,
                optimistic=metric.optimistic,
                pessimistic=metric.pessimistic,
            )
            for name, metric in record.metrics.items()
        },
        source="clip-eval",
        path=record.path,
        settings=record.settings,
        record=record,
    )


def split_model(name: str) -> tuple[str, str]:
    """("ViT-B-32", "openai") of "ViT-B-32:openai" or "ViT-B-32,openai"; folders and addresses are one part."""
    for separator in ":,":
        model, found, tag = name.partition(separator)
        if found and model and tag and "/" not in name and "\\" not in name:
            return model, tag
    return name, ""


def score_of(value: float, name: str, entry: Entry | None) -> Score:
    """A peer's bare number, with Wilson's interval where the catalogue knows how many queries it is of.

    The captions of one image are not independent, and how much not the bare number does not tell; the interval of
    text-to-image recall is that of one query for each image, which is wide enough in any case.
    """
    if entry is None or not 0 <= value <= 1:
        return Score(value=value)
    queries = entry.test
    if name.startswith("image_retrieval_recall@"):
        queries = entry.captions
    elif name not in _PER_IMAGE and not name.startswith("text_retrieval_recall@"):
        return Score(value=value)
    if not queries or not entry.test:
        return Score(value=value)
    low, high = wilson(value, min(queries, entry.test))
    clustered = queries > entry.test
    label = "Wilson, one query for each image" if clustered else "Wilson"
    return Score(value=value, n=queries, low=low, high=high, interval=f"{label}, N from the catalogue")


def main_metrics(metrics: Sequence[str], task: str, entry: Entry | None) -> tuple[str, ...]:
    """Which of `metrics` tables show first: the data set's own, both directions for retrieval; empty where none is."""
    if task != "retrieval" and entry is not None:
        probe = f"lp_{entry.main_metric}"
        for name in (probe,) if task == "linear_probe" else (entry.main_metric,):
            if name in metrics:
                return (name,)
    wanted = _MAIN.get(task, ())
    if task == "retrieval":
        for names in (wanted, _RECALL_AT_5, ("mean_recall@1",)):
            if found := tuple(name for name in names if name in metrics):
                return found
    return next(((name,) for name in wanted if name in metrics), tuple(metrics[:1]))


def is_share(name: str) -> bool:
    """Whether a metric lies between 0 and 1 and is shown in per cent."""
    return not any(part in name for part in _NOT_SHARES)


def lower_is_better(name: str) -> bool:
    """Whether less of it is better: ranks, losses, calibration errors."""
    return any(part in name for part in _LOWER)

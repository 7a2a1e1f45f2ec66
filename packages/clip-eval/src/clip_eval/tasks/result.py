"""What every task gives back: numbers for the record, and one line per image for whoever wants to look closer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from clip_eval.metrics import Metric

__all__ = ["Answer", "Outcomes", "SampleResult", "TaskResult"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the texts that a model finds for an image."""

    text: str
    similarity: float
    """Cosine of the two features; of a probe, the probability that it gives."""
    right: bool


@dataclass(frozen=True, slots=True)
class SampleResult:
    """What became of one image."""

    index: int
    """Its place in the data set."""
    key: str
    truth: tuple[str, ...]
    """The class name, or the captions."""
    right: bool
    """Whether the first answer is right."""
    answers: tuple[Answer, ...]
    """The three best texts, best first."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What each of Q queries scored, in the order of the data set."""

    values: Tensor
    """float32 (Q,): its share in the mean; with ties the expected value."""
    clusters: Tensor
    """int64 (Q,): the place in the data set of the image that a query belongs to; its queries are one unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """The outcome of one task on one data set."""

    task: str
    metrics: dict[str, Metric]
    ties: dict[str, float]
    """Share of queries in which a right and a wrong answer tie, by the part of the metrics' names that it concerns."""
    details: dict[str, Any]
    """Whatever else belongs into the record, as plain types."""
    samples: list[SampleResult]
    """One line per image, where there is one."""
    outcomes: dict[str, Outcomes] = field(default_factory=dict)
    """Per metric that is a mean over queries: what each query scored, for paired tests between two models."""
    artefacts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Tensors worth keeping beside the record, by file name without ending ("probe": weight, bias)."""
    seconds_texts: float
    seconds_metrics: float

"""Metrics on features: pure functions of tensors that know nothing of models, files or command lines."""

from __future__ import annotations

from clip_eval.metrics.classification import ClassificationScores, classify, score_classification
from clip_eval.metrics.intervals import Metric, wilson
from clip_eval.metrics.retrieval import RetrievalScores, score_retrieval

__all__ = [
    "ClassificationScores",
    "Metric",
    "RetrievalScores",
    "classify",
    "score_classification",
    "score_retrieval",
    "wilson",
]

"""Tasks: what is asked of the features of one data set, and what an evaluation record says about the answers."""

from __future__ import annotations

from clip_eval.tasks.linear_probe import evaluate_linear_probe
from clip_eval.tasks.multilabel import evaluate_multilabel
from clip_eval.tasks.result import TaskResult
from clip_eval.tasks.retrieval import evaluate_retrieval
from clip_eval.tasks.zero_shot import evaluate_zero_shot

__all__ = ["TaskResult", "evaluate_linear_probe", "evaluate_multilabel", "evaluate_retrieval", "evaluate_zero_shot"]

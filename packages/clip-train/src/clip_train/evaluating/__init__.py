"""Evaluation while training: validation pairs, ImageNet, and data sets of clip-eval, after whole epochs."""

from __future__ import annotations

from clip_train.evaluating.turns import Evaluations, open_evaluations

__all__ = ["Evaluations", "open_evaluations"]

"""What is measured on the way: `EvaluationConfig`."""

from __future__ import annotations

import dataclasses

from clip_core.schema import Schema

__all__ = ["EvaluationConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig(Schema):
    """Validation, zero-shot and retrieval while training."""

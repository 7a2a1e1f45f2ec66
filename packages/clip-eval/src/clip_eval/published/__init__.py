"""Published scores of 118 sets of weights (OpenCLIP's tables), how well such tables agree, and what follows from them.

The scores are facts in `zero_shot.csv`, `retrieval.csv` and `multilingual.csv`, in ten-thousandths, written by
`tools/published_scores.py`; they come to 78 kB in the wheel. What is not here: comparing one's own records with them
(`clip_eval.regress`).
"""

from __future__ import annotations

from clip_eval.published.robustness import SHIFTS, RobustnessFit, fit_robustness
from clip_eval.published.rows import (
    PUBLISHED_METRICS,
    PublishedRow,
    published_metric,
    published_row,
    published_rows,
    split_model,
)
from clip_eval.published.tolerances import NOT_COMPARABLE, Tolerance, tolerance_for

__all__ = [
    "NOT_COMPARABLE",
    "PUBLISHED_METRICS",
    "SHIFTS",
    "PublishedRow",
    "RobustnessFit",
    "Tolerance",
    "fit_robustness",
    "published_metric",
    "published_row",
    "published_rows",
    "split_model",
    "tolerance_for",
]

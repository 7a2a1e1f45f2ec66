"""Zero-shot and retrieval scores for CLIP models, with error bars.

`open_dataset` reads a benchmark folder, `evaluate` scores a model on it, `write_report` makes a page of the records.
"""

from __future__ import annotations

from clip_eval.__about__ import __version__
from clip_eval.evaluation import evaluate
from clip_eval.records import Record, read_records
from clip_eval.wds import WdsDataset, open_dataset

__all__ = ["Record", "WdsDataset", "__version__", "evaluate", "open_dataset", "read_records"]

"""Evaluation records: what one model scored on one task, written as strict JSON with its companions, and read back;
and what other tools wrote, in the same form.
"""

from __future__ import annotations

from clip_eval.records.facts import contents_sha256, dataset_facts, model_facts, run_facts, shards_sha256, split_facts
from clip_eval.records.readers import read_rows
from clip_eval.records.reading import SavedRecord, find_record, load_record, read_records
from clip_eval.records.record import SCHEMA, Record, record_name
from clip_eval.records.rows import Row, Score

__all__ = [
    "SCHEMA",
    "Record",
    "Row",
    "SavedRecord",
    "Score",
    "contents_sha256",
    "dataset_facts",
    "find_record",
    "load_record",
    "model_facts",
    "read_records",
    "read_rows",
    "record_name",
    "run_facts",
    "shards_sha256",
    "split_facts",
]

"""Evaluation records: what one model scored on one task, written as strict JSON with its companions, and read back."""

from __future__ import annotations

from clip_eval.records.facts import dataset_facts, model_facts, run_facts
from clip_eval.records.reading import SavedRecord, find_record, load_record, read_records
from clip_eval.records.record import SCHEMA, Record, record_name

__all__ = [
    "SCHEMA",
    "Record",
    "SavedRecord",
    "dataset_facts",
    "find_record",
    "load_record",
    "model_facts",
    "read_records",
    "record_name",
    "run_facts",
]

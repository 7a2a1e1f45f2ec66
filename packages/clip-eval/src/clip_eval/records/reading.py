"""Reads records back: the JSON as plain types with a few typed looks into it, and the companions on demand."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from clip_core.errors import DataError
from clip_eval.metrics import Metric
from clip_eval.records.record import SCHEMA

__all__ = ["SavedRecord", "find_record", "load_record", "read_records"]


class SavedRecord(NamedTuple):
    """A record on disk; also a pair (path, data) for whoever wants the plain types."""

    path: Path
    data: dict[str, Any]

    @property
    def task(self) -> str:
        """Such as "zero_shot_classification"."""
        return str(self.data["task"])

    @property
    def metrics(self) -> dict[str, Metric]:
        """All numbers by name."""
        return {name: Metric(**values) for name, values in self.data["metrics"].items()}


def load_record(path: str | PathLike[str]) -> SavedRecord:
    """One record; `DataError` for a file that is none."""
    place = Path(path)
    try:
        data = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{place}: not a readable record ({error}).") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA or "metrics" not in data:
        raise DataError(f"{place}: not an evaluation record of schema {SCHEMA}. Move other files out of the folder.")
    return SavedRecord(place, data)


def find_record(folder: str | PathLike[str], name: str) -> SavedRecord | None:
    """The record that `record_name` calls `name`, if it is there and whole; `DataError` for a damaged one."""
    path = Path(folder) / f"{name}.json"
    return load_record(path) if path.is_file() else None


def read_records(folder: str | PathLike[str]) -> list[SavedRecord]:
    """All records that `Record.save` left in a folder, by file name; `DataError` for none or for a damaged one."""
    base = Path(folder)
    records = [load_record(path) for path in sorted(base.glob("*.json"))]
    if not records:
        raise DataError(f"{base}: holds no evaluation record. `clip-eval run DATASET --output {base}` writes them.")
    return records

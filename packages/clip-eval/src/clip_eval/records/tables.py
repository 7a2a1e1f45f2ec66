"""Results as tables with one line for each number, for programs: CSV and parquet.

What is not here: tables for people (`overview`), the peers' own columns (`peer_tables`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_core.errors import ConfigError
from clip_eval.records.rows import Row, main_metrics

__all__ = ["COLUMNS", "chosen_metrics", "tidy", "to_csv", "to_parquet"]

COLUMNS = (
    *("dataset", "split", "task", "language", "model", "pretrained", "metric", "value", "low", "high", "n"),
    *("interval", "optimistic", "pessimistic", "excluded", "source", "precision", "device", "weights_sha256"),
    *("prompts_id", "data_sha256", "seconds", "clip_eval", "torch", "created", "file"),
)
"""Of the tables with one line for each number; new ones come at the end."""
_TEXT_COLUMNS = frozenset(COLUMNS) - {"value", "low", "high", "n", "optimistic", "pessimistic", "excluded", "seconds"}


def chosen_metrics(row: Row, wanted: str | Sequence[str]) -> tuple[str, ...]:
    """The names of a row's metrics that are wanted: "main", "all", or names."""
    if wanted == "all":
        return tuple(row.metrics)
    if wanted == "main":
        return main_metrics(tuple(row.metrics), row.task, row.entry)
    return tuple(name for name in wanted if name in row.metrics)


def tidy(rows: Sequence[Row], metrics: str | Sequence[str] = "all") -> list[dict[str, Any]]:
    """One dictionary with the keys `COLUMNS` for each number; None for what is not known."""
    return [
        dict.fromkeys(COLUMNS)
        | _facts(row)
        | {
            "metric": name,
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "n": score.n,
            "interval": score.interval or None,
            "optimistic": score.optimistic,
            "pessimistic": score.pessimistic,
        }
        for row in rows
        for name in chosen_metrics(row, metrics)
        for score in (row.metrics[name],)
    ]


def _facts(row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "dataset": row.dataset,
        "split": row.split,
        "task": row.task,
        "language": row.language,
        "model": row.model,
        "pretrained": row.pretrained or None,
        "source": row.source,
        "file": str(row.path),
    }
    if row.record is not None:
        data = row.record.data
        versions = data.get("versions", {})
        facts |= {
            "excluded": data["dataset"].get("excluded", {}).get("count"),
            "precision": data.get("precision", {}).get("model"),
            "device": data.get("device"),
            "weights_sha256": data["model"].get("weights_sha256"),
            "prompts_id": row.record.prompts_id,
            "data_sha256": data["dataset"].get("shards_sha256"),
            "seconds": data.get("seconds", {}).get("total"),
            "clip_eval": versions.get("clip-eval"),
            "torch": versions.get("torch"),
            "created": data.get("created"),
        }
    return facts


def to_csv(lines: Sequence[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """A table with a head; numbers in full, an empty cell for what is not known."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def to_parquet(lines: Sequence[Mapping[str, Any]], path: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Writes the same table as parquet.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed: `pip install 'clip-eval[parquet]'`, or write --format csv."
        ) from error
    integers = ("n", "excluded")
    schema = pyarrow.schema(
        (
            column,
            pyarrow.string()
            if column in _TEXT_COLUMNS
            else pyarrow.int64()
            if column in integers
            else pyarrow.float64(),
        )
        for column in columns
    )
    table = pyarrow.Table.from_pylist([{column: line[column] for column in columns} for line in lines], schema=schema)
    pyarrow.parquet.write_table(table, path)

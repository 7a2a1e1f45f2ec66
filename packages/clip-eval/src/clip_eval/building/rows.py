"""Rows of a table, as dictionaries, from CSV, TSV, JSON lines and parquet; and the values in their cells."""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_core.errors import DataError, nearest

__all__ = ["Row", "as_image", "as_list", "cell", "read_rows"]

Row = Mapping[str, Any]
_BATCH = 256


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows one after the other; of parquet only `columns` are read, if some are named.

    Raises:
        DataError: no such file, an unknown ending, or a file that is not what its ending says.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            yield from _delimited(path, "\t" if suffix == ".tsv" else ",")
        elif suffix in (".jsonl", ".ndjson"):
            yield from _json_lines(path)
        elif suffix == ".parquet":
            yield from _parquet(path, columns)
        else:
            raise DataError(f"{path}: not a table; allowed: .csv, .tsv, .jsonl, .parquet.")
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table ({error}).") from error


def cell(row: Row, column: str, path: Path) -> Any:
    """The value in a column; `DataError`, with the nearest names, where there is no such column."""
    if column not in row:
        close = nearest(column, row)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(f"{path}: has no column {column!r}.{hint} Its columns: {', '.join(map(str, row))}.")
    return row[column]


def as_list(value: Any, separator: str = "") -> list[Any]:
    """A list that may stand as text: a JSON or Python list, or texts with a separator; without one, a single entry."""
    if value is None or value == "":
        return []
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, str):
        return [value]
    text = value.strip()
    if text.startswith("[") and text.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text)
            except (ValueError, SyntaxError):
                continue
            if isinstance(found, list):
                return found
    return [part.strip() for part in value.split(separator)] if separator else [value]


def as_image(value: Any, root: Path) -> bytes | Path:
    """The bytes of an image, or its path: a cell holds one of them, or both as Hugging Face's `Image` has it."""
    if isinstance(value, Mapping):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if not isinstance(value, str) or not value:
        raise DataError(f"A cell for an image holds {type(value).__name__}; allowed: a path or the bytes of a file.")
    return root / value


def _delimited(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        for row in reader:
            if None in row or None in row.values():
                raise DataError(f"{path}: line {reader.line_num} has more or fewer cells than the first line.")
            yield row


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}: line {number} is not valid JSON ({error}).") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}: line {number} must hold one object.")
            yield row


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(f"{path}: parquet needs pyarrow: pip install 'clip-eval[parquet]'.") from error
    try:
        with pq.ParquetFile(path) as file:
            known = file.schema_arrow.names
            wanted = None if columns is None else [name for name in columns if name in known]
            for batch in file.iter_batches(batch_size=_BATCH, columns=wanted or None):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a readable parquet file ({error}).") from error

"""Reads results of any known kind from files and folders, ours beside the peers', all as rows.

The kind is told by what is in a file, not by its name. What is not here: the kinds themselves (`reading`, `peers`).
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from clip_core.errors import DataError
from clip_eval.catalogue import lookup
from clip_eval.records import peers
from clip_eval.records.reading import is_record, load_record, parse_json
from clip_eval.records.rows import Row, row_of

__all__ = ["read_rows"]

_log = logging.getLogger(__name__)

_KNOWN = (
    "Known are: records of clip-eval, CLIP_benchmark's JSON and its table, DataComp's eval_results.jsonl, OpenCLIP's "
    "result tables and the results.jsonl of its training."
)
_PEER_KEYS = ("dataset", "model", "pretrained", "task", "metrics")
_TRAINING_KEYS = ("zeroshot-val-top", "image_to_text_", "text_to_image_")


class _UnknownKind(DataError):
    """A file that is readable and none of the known kinds."""


def read_rows(sources: Iterable[str | PathLike[str]]) -> list[Row]:
    """The rows of all sources, in their order; of a folder those of its files by name, not of folders in it.

    In a folder, tables and `.jsonl` files of an unknown kind are passed over: our records have such companions.

    Raises:
        DataError: a source is missing, unreadable, damaged, of an unknown kind, or holds no result.
    """
    rows: list[Row] = []
    for source in sources:
        path = Path(source)
        found = _read_folder(path) if path.is_dir() else _read_file(path)
        if not found:
            raise DataError(f"{path}: holds no result. {_KNOWN}")
        rows += found
    return rows


def _read_folder(folder: Path) -> list[Row]:
    rows: list[Row] = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            rows += _read_file(path)
        elif path.suffix in (".jsonl", ".csv") and not path.name.endswith(".samples.jsonl"):
            try:
                rows += _read_file(path)
            except _UnknownKind:
                _log.info("%s: passed over, no results", path)
    return rows


def _read_file(path: Path) -> list[Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    # One object over the whole file is JSON, one in each line is JSON lines; a single line can be both.
    if text.lstrip().startswith("{"):
        try:
            data = parse_json(text, strict=False)
        except (ValueError, RecursionError) as error:
            if "\n" in text.strip() and path.suffix != ".json":
                return _read_lines(path, text)
            raise DataError(f"{path}: not readable JSON ({error}). The file may be cut short.") from error
        if is_record(data):
            return [row_of(load_record(path))]
        if all(key in data for key in _PEER_KEYS):
            return peers.read_clip_benchmark_json(path, data)
        return _read_lines(path, text)
    return _read_table(path, text)


def _read_lines(path: Path, text: str) -> list[Row]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    try:
        data = parse_json(first, strict=False)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict) and "key" in data and "metrics" in data:
        return peers.read_datacomp(path, text)
    if isinstance(data, dict) and any(part in key for key in data for part in _TRAINING_KEYS):
        return peers.read_open_clip_training(path, text)
    raise _UnknownKind(f"{path}: results of an unknown kind. {_KNOWN}")


def _read_table(path: Path, text: str) -> list[Row]:
    head = next(csv.reader(text.splitlines()[:1]), [])
    if {"dataset", "model", "pretrained", "task"} <= set(head):
        return peers.read_clip_benchmark_table(path, text)
    if {"name", "pretrained"} <= set(head):
        if any(" retr. R@" in column for column in head):
            return peers.read_open_clip_retrieval(path, text)
        if any(lookup(column) is not None for column in head):
            return peers.read_open_clip_scores(path, text)
    if {"model", "version"} <= set(head) and any("_retrieval_recall@" in column for column in head):
        return peers.read_open_clip_languages(path, text)
    raise _UnknownKind(f"{path}: results of an unknown kind. {_KNOWN}")

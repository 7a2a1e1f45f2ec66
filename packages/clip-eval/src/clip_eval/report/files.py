"""Reads the samples and the pictures beside a record, and nothing else that a stranger's folder points at."""

from __future__ import annotations

import base64
from pathlib import Path

from clip_core.errors import DataError
from clip_eval.records.companions import read_samples
from clip_eval.tasks.result import SampleResult

__all__ = ["data_uri", "own_samples"]

_PNG = b"\x89PNG\r\n\x1a\n"


def own_samples(record: Path) -> list[SampleResult]:
    """The lines of `<name>.samples.jsonl` beside the record; `DataError` where it is missing, damaged or a link."""
    path = record.with_suffix(".samples.jsonl")
    if path.resolve().parent != path.parent.resolve():
        raise DataError(f"{path}: a link, so not the samples of this record. Run the evaluation again.")
    return read_samples(path)


def data_uri(record: Path, index: int) -> str:
    """The picture `<index>.png` in the record's `<name>.images` as a data URI; `DataError` for anything else."""
    if type(index) is not int or index < 0:
        raise DataError(f"{record}: picture {index!r} is not a whole number from 0. Run the evaluation again.")
    folder = record.with_suffix(".images")
    path = folder / f"{index}.png"
    # Only the results folder itself may be reached through a link.
    if path.resolve() != folder.parent.resolve() / folder.name / path.name or (path.exists() and not path.is_file()):
        raise DataError(
            f"{path}: a link or no regular file, so not a picture of this record. Run the evaluation again."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: missing picture ({error.strerror}). Run the evaluation again.") from error
    if not data.startswith(_PNG):
        raise DataError(f"{path}: not a PNG picture. Run the evaluation again.")
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")

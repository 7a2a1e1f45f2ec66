"""Reads the samples and the pictures beside a record, and nothing else that a stranger's folder points at."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from clip_core.errors import DataError
from clip_eval.tasks.result import Answer, SampleResult

__all__ = ["data_uri", "read_samples"]

_PNG = b"\x89PNG\r\n\x1a\n"


def read_samples(record: Path) -> list[SampleResult]:
    """The lines of `<name>.samples.jsonl` beside the record; `DataError` where it is missing or damaged."""
    path = record.with_suffix(".samples.jsonl")
    if path.resolve().parent != path.parent.resolve():
        raise DataError(f"{path}: a link, so not the samples of this record. Run the evaluation again.")
    samples = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                data = json.loads(line)
                answers = tuple(Answer(**answer) for answer in data.pop("answers"))
                sample = SampleResult(answers=answers, truth=tuple(data.pop("truth")), **data)
                if type(sample.index) is not int or sample.index < 0:
                    raise ValueError(f"index is {sample.index!r}, not a whole number from 0")
                for answer in sample.answers:
                    if type(answer.similarity) not in (int, float):
                        raise ValueError(f"similarity is {answer.similarity!r}, not a number")
                samples.append(sample)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: not the samples of a record ({error!r}). Run the evaluation again.") from error
    return samples


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

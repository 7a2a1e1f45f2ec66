"""A run folder as the report sees it: columns of numbers instead of records, whatever version wrote them.

A run that goes on, or was killed, can be read as well: what a last line lacks is left out.
"""

from __future__ import annotations

import dataclasses
import json
import math
from array import array
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from clip_core.errors import DataError
from clip_train.measuring.split import Split

__all__ = ["RunRecord", "read_run"]

_COLUMNS = ("step", "samples_seen", "loss", "lr", "logit_scale", "grad_norm", "samples_per_second", "mfu")
BUCKETS = 240
"""Points of a curve: more than a screen can tell apart would only make the page heavy."""


@dataclasses.dataclass(slots=True)
class RunRecord:
    """What a run says of itself."""

    name: str
    config: dict[str, Any]
    """Field -> value, of all groups."""
    columns: dict[str, array[float]]
    """Number -> its value at every step, NaN where there is none; "step" and "samples_seen" among them."""
    updated: int
    """Steps whose update was applied."""
    overflowed: int
    """Steps without one, because the scaled gradient was too large for float16 (--precision amp)."""
    skipped_samples: int
    """Slots whose sample could not be used, over all steps."""
    split: Split
    """Where the time went, all steps but the first."""
    splits: list[tuple[float, Split]]
    """The same over time: (step, sums around it)."""
    evaluations: list[dict[str, Any]]
    summary: dict[str, Any]

    @property
    def steps(self) -> int:
        """How many there are."""
        return len(self.columns["step"])


def read_run(folder: str | PathLike[str]) -> RunRecord:
    """The run in `folder`.

    Raises `DataError` where config.json or metrics.jsonl is missing or damaged, or no step has ended.
    """
    home = Path(folder)
    config = _object(home / "config.json")
    records = list(_lines(home / "metrics.jsonl"))
    if not records:
        raise DataError(f"{home / 'metrics.jsonl'} holds no step; the run ended before its first one.")
    columns = {name: array("d", (_number(record.get(name)) for record in records)) for name in _COLUMNS}
    size = math.ceil(len(records) / BUCKETS)
    groups = [records[start : start + size] for start in range(1, len(records), size)]
    return RunRecord(
        name=home.resolve().name,
        config={name: value for group in config.values() if isinstance(group, dict) for name, value in group.items()},
        columns=columns,
        updated=sum(bool(record.get("updated", True)) for record in records),
        overflowed=sum(_is_overflow(record) for record in records),
        skipped_samples=sum(int(record.get("skipped_samples") or 0) for record in records),
        split=Split(records[1:]),
        splits=[(_number(group[len(group) // 2].get("step")), Split(group)) for group in groups],
        evaluations=list(_lines(home / "evaluations.jsonl")) if (home / "evaluations.jsonl").is_file() else [],
        summary=_object(home / "summary.json") if (home / "summary.json").is_file() else {},
    )


def _is_overflow(record: dict[str, Any]) -> bool:
    scaled = (record.get("loss_scale") or 0) > 1
    return scaled and not record.get("updated", True) and record.get("loss") is not None and not record.get("grad_norm")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _object(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no readable file of a run ({error}).") from error
    if not isinstance(body, dict):
        raise DataError(f"{path} is no file of a run: it holds {type(body).__name__}.")
    return body


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); is this the folder of a run?") from error
    # Whoever writes a line ends it: text behind the last line feed is what a killed run did not finish.
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or not isinstance(record["step"], int):
                raise ValueError("no step")
        except (ValueError, KeyError) as error:
            raise DataError(f"{path}: line {number} is no record of a step ({error}).") from error
        yield record

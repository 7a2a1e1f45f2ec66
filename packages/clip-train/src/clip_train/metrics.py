"""What a run says about itself: `metrics.jsonl`, one strict-JSON record per optimiser step, and the account of samples.

A record is written and flushed in one piece, so a run that is cut short leaves a file that is valid to its last line.
What a full disk refuses waits in memory and is tried again with the next record.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

from clip_train.data.decode import Batch
from clip_train.data.source import Source

__all__ = ["MetricsFile", "RecordFile", "SampleAccount"]

_log = logging.getLogger(__name__)


class RecordFile:
    """Appends lines to a file, whole ones alone; what cannot be written waits for the next one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[tuple[int, bytes]] = []
        # A save in the background has the records written, too.
        self._lock = threading.Lock()

    def add(self, step: int, line: str) -> None:
        """Write `line`, without its end, which is about `step`; a disk that refuses it is said in the log, once."""
        with self._lock:
            refused = bool(self._waiting)
            # After a roll back the same steps come again.
            self._waiting = [entry for entry in self._waiting if entry[0] < step]
            self._waiting.append((step, f"{line}\n".encode()))
            try:
                self._write()
            except OSError as error:
                if not refused:
                    _log.error("%s cannot be written (%s): its records wait in memory", self.path, error)
                return
            if refused:
                _log.info("%s can be written again, and no record is missing", self.path)

    def sync(self) -> None:
        """Have the system write through to the disk what was added; `OSError` where that fails."""
        with self._lock:
            self._write()
            with self.path.open("ab") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Try once more to write what waits, and say in the log what is lost."""
        with self._lock:
            try:
                self._write()
            except OSError as error:
                _log.error("%d records of %s are lost: %s", len(self._waiting), self.path, error)

    def _write(self) -> None:
        if not self._waiting:
            return
        with self.path.open("ab", buffering=0) as file:
            while self._waiting:
                line = self._waiting[0][1]
                written = file.write(line)
                if written < len(line):
                    # A disk that fills up takes half a line; the whole line is written later.
                    file.truncate(file.tell() - written)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                del self._waiting[0]


class MetricsFile:
    """Appends records to `metrics.jsonl`, behind those that are there; a context manager."""

    def __init__(self, path: Path) -> None:
        path.open("a").close()
        self._file = RecordFile(path)

    def write(self, record: dict[str, Any]) -> None:
        """Write one record, or keep it until the disk takes it.

        A float that is not finite becomes null; for "loss", "finite" says which it is.
        """
        body = {key: _finite_or_none(value) for key, value in record.items()}
        body["finite"] = body["loss"] is not None
        self._file.add(body["step"], json.dumps(body, allow_nan=False))

    def sync(self) -> None:
        """Have the system write through to the disk what was written; `OSError` where that fails."""
        self._file.sync()

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class SampleAccount:
    """Sums what the batches report, so that no sample is lost without a count and a name."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._bad: dict[int, str] = {}
        self._bad_by_group: Counter[int] = Counter()
        self._truncated: set[int] = set()
        self.skipped_slots = 0
        """How often a sample could not be used and another took its place."""
        self.truncated_slots = 0
        """How often a caption was cut to the context length."""

    def add(self, batch: Batch) -> None:
        """Take over the account of `batch`; names each bad sample in the log when it is first met."""
        self.skipped_slots += len(batch.skipped)
        self.truncated_slots += len(batch.truncated)
        self._truncated.update(batch.truncated)
        for index, reason in batch.skipped:
            if index not in self._bad:
                self._bad[index] = reason
                self._bad_by_group[self._source.group(index)] += 1
                _log.warning("skipped %s: %s", self._source.label(index), reason)

    def findings(self) -> dict[str, Any]:
        """What this process met, for another one to `merge`, or for a checkpoint."""
        return {
            "bad": dict(self._bad),
            "truncated": sorted(self._truncated),
            "skipped_slots": self.skipped_slots,
            "truncated_slots": self.truncated_slots,
        }

    def merge(self, findings: dict[str, Any]) -> None:
        """Add what another process met; its own findings once more change no set, and must not be added."""
        for index, reason in findings["bad"].items():
            if index not in self._bad:
                self._bad[index] = reason
                self._bad_by_group[self._source.group(index)] += 1
        self._truncated.update(findings["truncated"])
        self.skipped_slots += findings["skipped_slots"]
        self.truncated_slots += findings["truncated_slots"]

    @property
    def skipped_samples(self) -> int:
        """Different samples that could not be used."""
        return len(self._bad)

    @property
    def truncated_captions(self) -> int:
        """Different samples whose caption was cut."""
        return len(self._truncated)

    def summary(self) -> dict[str, Any]:
        """All counts as JSON, the bad samples by shard and by name."""
        groups = self._source.groups
        return {
            "samples": len(self._source),
            "skipped_samples": self.skipped_samples,
            "skipped_slots": self.skipped_slots,
            "skipped_by_shard": {groups[group]: count for group, count in sorted(self._bad_by_group.items())},
            "skipped": {self._source.label(index): reason for index, reason in sorted(self._bad.items())},
            **self._source.facts(),
            "truncated_captions": self.truncated_captions,
            "truncated_slots": self.truncated_slots,
        }


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

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

# How many bad samples a process names in its log, and of one shard; and how many shards it names at the end.
_NAMED, _NAMED_OF_A_SHARD, _WORST = 1000, 10, 5


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
    """Sums what the batches report, so that no sample is lost without a count and a name.

    The summary names all of them; the log the first of each shard, and at most so many that it can still be read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._named, self._say_at = 0, 2 * _NAMED
        self._bad: dict[int, str] = {}
        self._bad_by_group: Counter[int] = Counter()
        self._truncated: set[int] = set()
        self.skipped_slots = 0
        """How often a sample could not be used and another took its place."""
        self.truncated_slots = 0
        """How often a caption was cut to the context length."""

    def add(self, batch: Batch) -> None:
        """Take over the account of `batch`; bad samples are named in the log when they are first met."""
        self.skipped_slots += len(batch.skipped)
        self.truncated_slots += len(batch.truncated)
        self._truncated.update(batch.truncated)
        for index, reason in batch.skipped:
            if self._note(index, reason):
                self._name(index, reason)

    def _note(self, index: int, reason: str) -> bool:
        """Whether the sample was not known before."""
        if index in self._bad:
            return False
        self._bad[index] = reason
        self._bad_by_group[self._source.group(index)] += 1
        return True

    def _name(self, index: int, reason: str) -> None:
        """Say of a sample that was just noted that it is bad, unless so much was said already."""
        total, group = len(self._bad), self._source.group(index)
        of_group = self._bad_by_group[group]
        if self._named < _NAMED and of_group <= _NAMED_OF_A_SHARD:
            self._named += 1
            _log.warning("skipped %s: %s", self._source.label(index), reason)
            if of_group == _NAMED_OF_A_SHARD:
                _log.warning("more samples of %s that are skipped are counted, not named", self._source.groups[group])
        elif total >= self._say_at:
            _log.warning("skipped %d different samples so far", total)
            self._say_at = 2 * total

    def say(self) -> None:
        """Sum up in the log how many it were, and in which shards most."""
        if not self._bad:
            return
        shards = self._bad_by_group.most_common(_WORST)
        rest = len(self._bad_by_group) - len(shards)
        _log.warning(
            "%d different samples could not be used, %d times; of %s%s; summary.json names them all",
            len(self._bad),
            self.skipped_slots,
            ", ".join(f"{self._source.groups[group]} {count}" for group, count in shards),
            f" and {rest} more" if rest else "",
        )

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
            self._note(index, reason)
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

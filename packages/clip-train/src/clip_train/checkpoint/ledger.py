"""`metrics.jsonl` of a run that goes on: the records up to the checkpoint, and not a line more.

What this room leaves out: writing records (`metrics`).
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

__all__ = ["carry_over", "cut"]

_log = logging.getLogger(__name__)


def cut(path: Path, step: int) -> None:
    """Take from the file at `path` what was recorded after `step`, half a line at its end included."""
    if not path.exists():
        if step:
            _log.warning("%s is gone: the records begin after step %d", path, step)
        return
    kept, last = _kept(path, step)
    with path.open("r+b") as file:
        file.truncate(kept)
        os.fsync(file.fileno())
    if last != step:
        _log.warning("%s ends at step %d, not at %d: records of the steps between are missing", path, last, step)


def carry_over(source: Path, target: Path, step: int) -> None:
    """Begin `target` with the records of another run up to `step`, where `source` has them."""
    if source.exists():
        kept, _ = _kept(source, step)
        with source.open("rb") as file:
            target.write_bytes(file.read(kept))


def _kept(path: Path, step: int) -> tuple[int, int]:
    """How many bytes hold the records up to `step`, and the step of the last of them."""
    kept, last = 0, 0
    with path.open("rb") as file:
        for line in file:
            try:
                number = json.loads(line)["step"] if line.endswith(b"\n") else step + 1
            except (ValueError, KeyError, TypeError):
                number = step + 1
            if number > step:
                break
            kept, last = kept + len(line), number
    return kept, last

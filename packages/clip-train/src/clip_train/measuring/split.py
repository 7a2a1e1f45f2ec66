"""Where the time of a run went: sums over the records of its steps, as a table and in words.

It reads records as `metrics.jsonl` holds them, so a running loop and a finished run are summed by the same lines. Two
kinds of seconds stay apart: those of the loop, which add up to its time, and those of making batches, which workers
spend meanwhile. What this room leaves out: measuring (`clock`, `data.spent`), processes beside each other (`pace`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from clip_train.config import TrainConfig
from clip_train.data.spent import Spent
from clip_train.measuring.clock import STAGES

__all__ = ["LOOP", "READING", "Split", "advise", "describe", "find_remedy"]

LOOP: dict[str, str] = {
    "wait": "waiting for data",
    "transfer": "host to device",
    "forward": "forward",
    "loss": "loss",
    "backward": "backward",
    "optimiser": "optimiser",
    "communication": "waiting for others",
    "beside": "saving, evaluating",
    "rest": "everything else",
}
"""Parts of the loop's time -> what to call them. "rest": what the program does while the device has nothing to do."""

READING: dict[str, str] = {"read": "read", "decode": "decode", "augment": "augment", "tokenise": "tokenise"}
"""Parts of making a batch, which is done beside the loop where there are workers."""

_REMEDIES = {
    "read": "put the shards on faster storage, or nearer",
    "decode": "store smaller pictures: few models need more than twice their own size",
    "augment": "take a cheaper augmentation (--aug-cfg), or store smaller pictures",
    "tokenise": "shorten the captions in the shards",
}

assert set(STAGES) < set(LOOP)
assert tuple(READING) == Spent._fields

# Below this the loop is as good as never without data.
_WAITED = 0.05
_MUCH = 0.15


class Split:
    """Sums of the steps that it was given."""

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self.steps = 0
        self.samples = 0.0
        """Of all processes."""
        self.seconds = 0.0
        """Of the loop, what happened between steps included."""
        self.loop = dict.fromkeys(LOOP, 0.0)
        """Part -> seconds; they add up to `seconds`."""
        self.reading = dict.fromkeys(READING, 0.0)
        """Part -> seconds of this process's workers."""
        for record in records:
            self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """One more step; a record without a split (of an earlier version) adds nothing."""
        if "wait_seconds" not in record:
            return
        self.steps += 1
        self.samples += record["samples_per_second"] * record["step_seconds"]
        parts = {part: record[f"{part}_seconds"] for part in LOOP if part != "rest"}
        whole = record["step_seconds"] + record["beside_seconds"]
        # The device may work on for a step that the program has left: then there is no rest.
        parts["rest"] = max(0.0, whole - sum(parts.values()))
        self.seconds += sum(parts.values())
        for part, value in parts.items():
            self.loop[part] += value
        for part in READING:
            self.reading[part] += record[f"{part}_seconds"]

    def share(self, part: str) -> float:
        """What a part of `LOOP` has of the loop's time, 0 to 1."""
        return self.loop[part] / self.seconds if self.seconds else 0.0

    def share_of_reading(self, part: str) -> float:
        """What a part of `READING` has of making batches, 0 to 1."""
        whole = sum(self.reading.values())
        return self.reading[part] / whole if whole else 0.0

    def to_json(self) -> dict[str, Any]:
        """All sums."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "loop_seconds": dict(self.loop),
            "reading_seconds": dict(self.reading),
        }


def describe(split: Split) -> list[str]:
    """The table, line by line; empty for a run without a step."""
    if not split.steps or not split.seconds:
        return []
    lines = [f"{'of the loop':<20}{'a step':>12}{'share':>9}"]
    lines += [_row(LOOP[part], value / split.steps, split.share(part)) for part, value in split.loop.items()]
    lines.append(f"{'of making a batch':<20}{'a step':>12}{'share':>9}")
    lines += [
        _row(READING[part], value / split.steps, split.share_of_reading(part)) for part, value in split.reading.items()
    ]
    return lines


def _row(name: str, seconds: float, share: float) -> str:
    return f"  {name:<18}{1000 * seconds:>9.2f} ms{100 * share:>7.1f} %"


def find_remedy(part: str, config: TrainConfig) -> str:
    """What makes a part of making a batch cheaper, of what the run does not do already."""
    if part == "augment" and config.data.image_resizer == "pillow" and not config.naflex.use_naflex:
        return f"{_REMEDIES[part]}, or take --image-resizer torch"
    return _REMEDIES[part]


def advise(split: Split, config: TrainConfig, *, cores: int) -> list[str]:
    """What the split means and what to do, a sentence each.

    cores: that the processes of this machine have for each of them.
    """
    if not split.steps or not split.seconds:
        return []
    waited = split.share("wait")
    said = []
    if waited < _WAITED:
        said.append(f"the data keeps up: the loop waited {_percent(waited)} of the time")
    else:
        chief = max(READING, key=split.share_of_reading)
        said.append(
            f"the data is too slow: the loop waited {_percent(waited)} of the time; {READING[chief]} takes "
            f"{_percent(split.share_of_reading(chief))} of the reading"
        )
        said.append(_more_workers(split, chief, config, cores))
    if split.share("communication") > _MUCH:
        said.append(
            f"processes wait for the slowest of them {_percent(split.share('communication'))} of the time; "
            "the log names it"
        )
    if split.share("beside") > _MUCH:
        said.append(
            f"saving and evaluating take {_percent(split.share('beside'))} of the time: do them less often, or "
            "save asynchronously"
        )
    return said


def _more_workers(split: Split, chief: str, config: TrainConfig, cores: int) -> str:
    workers = config.data.workers
    busy = split.seconds - split.loop["wait"]
    needed = math.ceil(sum(split.reading.values()) / busy) if busy > 0 else 0
    if needed > workers and workers < cores:
        enough = min(needed, cores)
        reach = "would keep up" if needed <= cores else f"are what this machine has cores for; {needed} would keep up"
        return f"give --workers {enough}: {enough} {reach}"
    return f"{workers} workers have {cores} cores: {find_remedy(chief, config)}, or give the process more cores"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"

"""How fast data can be read, with the flags of a run and without training: samples per second, and where the time goes.

What this room leaves out: what a run measures while it trains (`split`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from clip_train.config import TrainConfig
from clip_train.cores import own_cores
from clip_train.data.loader import explain_dead_workers, iterate_batches
from clip_train.data.spent import Spent
from clip_train.measuring.split import READING, find_remedy
from clip_train.plan import prepare

__all__ = ["Reading", "advise_reading", "measure_reading"]

_BATCH = 64


class Reading(NamedTuple):
    """What was read."""

    samples: int
    seconds: float
    spent: Spent
    """Of all workers."""
    skipped: int
    """Samples that could not be used."""

    @property
    def samples_per_second(self) -> float:
        """By the clock."""
        return self.samples / self.seconds

    def share(self, part: str) -> float:
        """What a part of `READING` has of the workers' time, 0 to 1."""
        return float(getattr(self.spent, part)) / (sum(self.spent) or 1.0)

    def lines(self) -> list[str]:
        """A table for people."""
        skipped = f", {self.skipped} could not be used" if self.skipped else ""
        found = [f"{self.samples_per_second:.0f} samples/s: {self.samples} in {self.seconds:.1f} s{skipped}"]
        for part, name in READING.items():
            milliseconds = 1000 * getattr(self.spent, part) / self.samples
            found.append(f"  {name:<10}{milliseconds:>8.2f} ms a sample{100 * self.share(part):>7.1f} %")
        return found


def measure_reading(
    config: TrainConfig, *, seconds: float, show: Callable[[int], object] = lambda samples: None
) -> Reading:
    """Read as the run that `config` describes would, for so many seconds; `show` is told of each batch.

    The model is made as for training, on the CPU. The first batch of each worker does not count. Raises what `prepare`
    and reading raise.
    """
    plan = prepare(config.replace(device="cpu", batch_size=config.optim.batch_size or _BATCH))
    data = plan.config.data
    numbers = range(1_000_000_000)
    batches = iterate_batches(
        plan.decoder, plan.share, numbers, workers=data.workers, device=plan.device, kind=data.worker_kind
    )
    samples = skipped = 0
    spent = Spent()
    with explain_dead_workers():
        for _ in range(max(1, data.workers)):
            next(batches)
        began = time.perf_counter()
        while samples == 0 or time.perf_counter() - began < seconds:
            batch = next(batches)
            samples += len(batch.tokens)
            skipped += len(batch.skipped)
            spent = spent.plus(batch.spent)
            show(len(batch.tokens))
        taken = time.perf_counter() - began
    return Reading(samples, taken, spent, skipped)


def advise_reading(reading: Reading, config: TrainConfig, cores: int | None = None) -> list[str]:
    """What would make it faster, a sentence each; cores: that this process has (default: ask the system)."""
    cores = cores or own_cores()
    chief = max(READING, key=reading.share)
    said = [f"{READING[chief]} takes {100 * reading.share(chief):.0f} % of the reading: {find_remedy(chief, config)}"]
    if config.data.workers < cores:
        said.append(f"give --workers {cores}: so many cores are here, and {config.data.workers} workers")
    return said

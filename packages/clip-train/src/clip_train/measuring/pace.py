"""Processes beside each other: which one the others wait for.

Every process comes to the same step at the same time, because each waits for all; what differs is how long it was busy
before the first exchange of a step. Each sums that up by itself; now and then, between two steps, the sums are gathered
between CPUs. What this room leaves out: a process that does not come at all (timeouts).
"""

from __future__ import annotations

import logging
import socket
from typing import Any

from torch import Tensor

from clip_train.measuring.split import Split
from clip_train.trainer import Running

__all__ = ["Pace", "Standing"]

_log = logging.getLogger(__name__)

_ALONE = ("wait", "transfer", "forward")
"""Parts of a step that come before anything is exchanged."""
_NOTABLE = 1.1


class Standing:
    """How busy each process was, by rank: seconds of a step before its first exchange."""

    def __init__(self, found: list[dict[str, Any]]) -> None:
        self._found = found
        self.seconds = [entry["seconds"] for entry in found]

    @property
    def slowest(self) -> int:
        """The rank that the others wait for."""
        return max(range(len(self.seconds)), key=self.seconds.__getitem__)

    @property
    def is_notable(self) -> bool:
        """Whether it takes so much longer than the fastest that something is to be gained."""
        return bool(max(self.seconds) > _NOTABLE * min(self.seconds))

    def describe(self) -> str:
        """One sentence."""
        entry = self._found[self.slowest]
        fastest = min(range(len(self.seconds)), key=self.seconds.__getitem__)
        return (
            f"process {self.slowest} on {entry['host']} is the slowest: {1000 * entry['seconds']:.1f} ms a step before "
            f"it meets the others, of which {100 * entry['waited']:.0f} % waiting for data; the fastest, "
            f"{fastest}, {1000 * self.seconds[fastest]:.1f} ms"
        )

    def record(self) -> dict[str, Any]:
        """What `metrics.jsonl` says of it."""
        return {
            "slowest_rank": self.slowest,
            "slowest_rank_seconds": max(self.seconds),
            "fastest_rank_seconds": min(self.seconds),
        }


class Pace:
    """A service that compares the processes every so many steps, and says who is slow."""

    votes: tuple[str, ...] = ()

    def __init__(self, split: Split, every: int) -> None:
        self.latest: Standing | None = None
        """Of the last comparison that was made; the same on every process."""
        self._split = split
        self._every = every
        self._before = (0, 0.0, 0.0)

    def after_step(self, running: Running, admitted: Tensor) -> None:
        """Compare, where it is time."""
        if running.plan.world.size > 1 and running.state.steps % self._every == 0:
            self.compare(running)

    def compare(self, running: Running) -> None:
        """Gather what was summed up since the last time; every process has to call it."""
        split, (steps, busy, waited) = self._split, self._before
        now = (split.steps, sum(split.loop[part] for part in _ALONE), split.loop["wait"])
        self._before = now
        count = max(now[0] - steps, 1)
        own = now[1] - busy
        found = running.plan.world.gather(
            {
                "host": socket.gethostname(),
                "steps": now[0] - steps,
                "seconds": own / count,
                "waited": (now[2] - waited) / own if own > 0 else 0.0,
            }
        )
        if not all(entry["steps"] for entry in found):
            return
        self.latest = Standing(found)
        if self.latest.is_notable and running.plan.world.is_first:
            _log.info("%s", self.latest.describe())

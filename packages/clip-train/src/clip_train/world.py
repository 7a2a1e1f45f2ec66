"""The processes of a run: which one this is, how they meet, and what they tell each other beside gradients.

Started by torchrun, by SLURM's srun, or alone, without a flag that says so. What this room leaves out: how the model is
spread over them (`parallel`) and the losses' own messages (`loss`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from clip_core.device import resolve_device
from clip_core.errors import ClipError, ConfigError
from clip_eval.processes import Place, find_place, leave
from clip_train.config import ParallelConfig, TrainConfig

__all__ = ["PeerFailed", "World", "join"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Long enough for one process to index the data while the others wait, short enough to be noticed.
_MEETING = timedelta(minutes=10)
# torch's own limit of gloo: the messages of `control` wait for what one process does alone, such as evaluating.
_WAITING = timedelta(minutes=30)
# Under torchrun the store is the agent's and outlives a run, so the next run of a program has keys of its own.
_JOINS = itertools.count()
# Of the processes, in the order in which all of them come to each.
_MEETINGS = itertools.count()


class PeerFailed(ClipError):
    """Another process of the run met an error that ends all; quotes it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The processes of a run, as one of them sees it."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")
    control: dist.ProcessGroup | None = None
    """A group of CPUs for small messages, which wait for no GPU."""
    store: Any = None
    """Where the processes met, torch's Store; holds small texts by name."""
    watched: bool = False
    """Whether a watchdog ends those that wait for a process that hangs or died."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over all processes, in place, where they are; on a GPU the program does not wait."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """The `value` of every process, by rank; anything that pickles."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control)
        return found

    def from_first(self, value: Any) -> Any:
        """The `value` of the first process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def together(self, work: Callable[[], T], *, patiently: bool = False) -> T:
        """What `work` gives on this process; where it fails on one process, all raise.

        patiently: one process may need hours longer than another; nothing but the watchdog limits the waiting.

        Raises:
            Exception: this process's own error; `PeerFailed`, which quotes it, on the others.
        """
        if self.size == 1:
            return work()
        try:
            result = work()
        except Exception as error:
            # Whatever it is, the others would wait for ever for a process that has given up.
            with contextlib.suppress(RuntimeError):
                if patiently:
                    self._meet()
                self.gather(_words(error))
            raise
        if patiently:
            self._meet()
        words = self.gather(None)
        failed = [rank for rank, text in enumerate(words) if text is not None]
        if failed:
            raise PeerFailed(f"Process {failed[0]} of {self.size} cannot go on: {words[failed[0]]}")
        return result

    def _meet(self) -> None:
        """Wait for the others through the store, where no message runs out of time."""
        if not self.watched:
            return
        name, pause = f"meeting/{next(_MEETINGS)}", 0.005
        here = self.store.add(name, 1)
        while here < self.size:
            time.sleep(pause)
            pause = min(1.0, 1.5 * pause)
            here = self.store.add(name, 0)

    def first_does(self, work: Callable[[], T]) -> T:
        """What `work` gives on the first process, which alone does it; its error is everybody's."""
        result = self.together(work if self.is_first else lambda: None)
        return self.from_first(result)  # type: ignore[no-any-return]

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier(group=self.control)


@contextlib.contextmanager
def join(config: TrainConfig) -> Iterator[World]:
    """The processes of this run, met and, at the end, parted.

    Raises:
        ConfigError: the launcher's environment cannot be used, more processes than GPUs, or they do not meet.
    """
    place = find_place()
    device = resolve_device(config.run.device) if config.run.no_set_device_rank else _device(config.run.device, place)
    if place.size == 1:
        yield World(device=device)
        return
    backend = config.parallel.dist_backend or ("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        if ":" not in str(device):
            # With --no-set-device-rank the launcher shows each process its own GPU; set_device wants the number.
            device = torch.device("cuda", torch.cuda.current_device())
        torch.cuda.set_device(device)
    # torchrun's own agent answers at the address, and env:// is how to ask it.
    launched = "env://" if "RANK" in os.environ else f"tcp://{place.address}:{place.port}"
    method = config.parallel.dist_url or launched
    try:
        store, _, _ = next(rendezvous(method, place.rank, place.size, timeout=_MEETING))
        # torchrun starts all anew beside the same store, in which the addresses of those before still stand.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"clip-train/{attempt}/{next(_JOINS)}", store)  # type: ignore[attr-defined]
        own = store.clone()
        dist.init_process_group(
            backend,
            store=store,
            timeout=_patience(config.parallel, _MEETING),
            rank=place.rank,
            world_size=place.size,
        )
    except (RuntimeError, ValueError, dist.DistError) as error:
        raise ConfigError(
            f"The {place.size} processes of this run do not meet ({backend} at {method}): {error}. Check that all of "
            "them were started, and that MASTER_ADDR and MASTER_PORT, or --dist-url, name a place that all hosts reach."
        ) from error
    try:
        control: Any = dist.new_group(backend="gloo", timeout=_patience(config.parallel, _WAITING))
        _log.info("process %d of %d, %s, %s", place.rank, place.size, device, backend)
        yield World(
            rank=place.rank,
            size=place.size,
            local_rank=place.local_rank,
            device=device,
            control=control,
            store=own,
            watched=config.parallel.timeout_seconds > 0,
        )
    finally:
        leave()


def _patience(config: ParallelConfig, least: timedelta) -> timedelta:
    """How long a message waits: `least`, or what the watchdog allows, which is to speak first and say more."""
    from clip_train.watchdog import LONG  # which imports this room

    return max(least, timedelta(seconds=LONG * config.timeout_seconds) + _MEETING) if config.timeout_seconds else least


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ClipError) else f"{type(error).__name__}: {error}"


def _device(name: str, place: Place) -> torch.device:
    device = resolve_device(name)
    if device.type != "cuda" or ":" in name or place.size == 1:
        return device
    count = torch.cuda.device_count()
    if place.local_rank >= count:
        raise ConfigError(
            f"Process {place.rank} is number {place.local_rank} on its host, which has {count} GPU(s). Start one "
            "process for each GPU (torchrun --nproc-per-node), or give --device."
        )
    return torch.device("cuda", place.local_rank)
